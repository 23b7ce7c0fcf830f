package audit

// TypeChange is that an engineer is about to change an object: what it was before, and what it will be. What became of it
// is in the entry of the request's end, which has the same number of the request.
const TypeChange Type = "Change"
