package audit

// TypeRecording is a piece of what went over a stream: of a command in a pod, or of a log. It has the number of the request
// whose stream it is.
const TypeRecording Type = "Recording"

// Recording is what went over a stream. In an entry of type Recording it is a piece of it; in the entry of the request's end
// it says what there is.
type Recording struct {
	// Piece numbers the pieces of one stream from 1.
	Piece int64 `json:"piece,omitempty"`
	// Frames are what went over it, packed as package cast does: Zstandard over microseconds, kind, length and bytes of each.
	Frames []byte `json:"frames,omitempty"`
	// Pieces is how many pieces there are, and Bytes how much of what came out of the pod is in them.
	Pieces int64 `json:"pieces,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
	// Omitted is how many bytes more came, which are not kept, and SHA256 the hash over all that came, those included.
	Omitted int64  `json:"omitted,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}
