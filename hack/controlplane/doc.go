// Package controlplane knows how to build, start and stop a real Kubernetes control plane on this machine's
// loopback interface. It knows nothing of support access.
//
// It is for development and tests only. Whoever may connect to this machine's loopback interface may run
// commands through kwok, as the user who started it.
package controlplane
