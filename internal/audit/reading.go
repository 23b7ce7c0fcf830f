package audit

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Reading is that somebody reads the log.
type Reading struct {
	// ID is the number of the request.
	ID string
	// User is who the API server says it is.
	User authenticationv1.UserInfo
	// Namespace is of which namespace, empty for all.
	Namespace string
	// URI says what was asked for.
	URI string
	// Address and Agent are from where and with what.
	Address, Agent string
}

// Bounds of what an entry repeats of a reading.
const (
	maxReadURI   = 4 << 10
	maxReadAgent = 512
)

// Read puts down that somebody reads the log, before they do.
func (l *Ledger) Read(ctx context.Context, r Reading) error {
	return l.Append(ctx, l.own(TypeRead, "list", func(e *Entry) {
		e.Stage = auditv1.StageRequestReceived
		e.AuditID, e.User = types.UID(r.ID), r.User
		e.RequestURI, e.UserAgent = r.URI[:min(len(r.URI), maxReadURI)], r.Agent[:min(len(r.Agent), maxReadAgent)]
		e.SourceIPs = []string{r.Address}
		e.ObjectRef = &auditv1.ObjectReference{
			APIGroup: "supportaccess.dev", Resource: "supportaccessrecords", Subresource: "log", Namespace: r.Namespace,
		}
	}))
}
