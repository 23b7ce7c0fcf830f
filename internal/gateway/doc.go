// Package gateway is the door through which engineers come: it identifies, decides, records and forwards, and it cuts
// what is open the moment a grant ends. It knows every grant by the same lifecycle as the controller, and it can give
// nothing: what it may do is what the API server lets an engineer's identity do, and less.
package gateway
