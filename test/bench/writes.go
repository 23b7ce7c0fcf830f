package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
)

const controller = "system:serviceaccount:" + v1alpha1.SystemNamespace + ":" + v1alpha1.ControllerServiceAccount

// write is one request that changed something.
type write struct {
	what  string
	began time.Time
	took  time.Duration
}

// countWrites counts what the controller writes for one grant, from the API server's audit log.
func (b *bench) countWrites(ctx context.Context) error {
	before, err := b.writes()
	if err != nil {
		return err
	}
	const name = "counted"
	g, err := b.openGrant(ctx, name)
	if err != nil {
		return err
	}
	if _, err := b.revokeGrant(ctx, g); err != nil {
		return err
	}
	if err := b.until(ctx, "the grant is gone", func(ctx context.Context) (bool, error) {
		err := b.admin.Get(ctx, types.NamespacedName{Namespace: tenant, Name: name}, &v1alpha1.SupportAccessGrant{})
		return client.IgnoreNotFound(err) == nil && err != nil, client.IgnoreNotFound(err)
	}); err != nil {
		return err
	}
	after, err := b.writes()
	if err != nil {
		return err
	}
	counted := after[len(before):]
	say("API writes of one grant from its application to its end, one engineer and two roles: %d", len(counted))
	for _, write := range counted {
		say("  %6d ms  %4d ms  %s", write.began.Sub(counted[0].began).Milliseconds(), write.took.Milliseconds(), write.what)
	}
	return nil
}

// writes are the controller's requests that changed something, as the API server logged them. Its own lease, by which
// replicas know who leads, is expected and not about grants, and nor are events; reviews change nothing.
func (b *bench) writes() ([]write, error) {
	file, err := os.Open(b.cp.AuditLogPath())
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { _ = file.Close() }()
	var out []write
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event auditv1.Event
		if json.Unmarshal(lines.Bytes(), &event) != nil || event.User.Username != controller || event.ObjectRef == nil {
			continue
		}
		ref := event.ObjectRef
		about := !isLease(ref) && !slices.Contains([]string{"events", "subjectaccessreviews", "tokenreviews"}, ref.Resource)
		changes := slices.Contains([]string{"create", "update", "patch", "delete"}, event.Verb)
		if about && changes && (ref.Resource != "supportaccessgrants" || event.Verb != "create") {
			resource := ref.Resource
			if ref.Subresource != "" {
				resource += "/" + ref.Subresource
			}
			what := event.Verb + " " + resource
			if status := event.ResponseStatus; status != nil && status.Code >= 300 {
				what += fmt.Sprintf(" -> %d", status.Code)
			}
			out = append(out, write{
				what: what, began: event.RequestReceivedTimestamp.Time,
				took: event.StageTimestamp.Sub(event.RequestReceivedTimestamp.Time),
			})
		}
	}
	return out, lines.Err()
}

// isLease reports whether a request is about the lease of the leader election, and no other.
func isLease(ref *auditv1.ObjectReference) bool {
	return ref.Resource == "leases" && ref.Namespace == v1alpha1.SystemNamespace && ref.Name == v1alpha1.ControllerServiceAccount
}
