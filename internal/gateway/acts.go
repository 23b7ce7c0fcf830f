package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
)

// acts puts down who deletes a grant, a decision, a setting or what the operator bound, and who makes, changes or deletes a
// policy: of a deletion nothing else says by whom. It says yes to everything, and nobody waits for it who finds it away.
func (v *reviews) acts(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if r.DryRun != nil && *r.DryRun {
		return &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
	}
	v.counters.reviewed("act")
	if err := v.log.Append(ctx, v.act(r)); err != nil {
		v.logger.Error(err, "Could not record who did it", "operation", r.Operation, "resource", r.Resource.Resource, "namespace", r.Namespace, "name", r.Name)
	}
	return &admissionv1.AdmissionResponse{UID: r.UID, Allowed: true}
}

// What is asked for, in the log's words. It is on its way: another webhook may refuse it still.
var wish = map[admissionv1.Operation]string{
	admissionv1.Create: "CreationAsked", admissionv1.Update: "ChangeAsked", admissionv1.Delete: "DeletionAsked",
}

func (v *reviews) act(r *admissionv1.AdmissionRequest) *audit.Entry {
	now, object := metav1.NewMicroTime(v.clock.Now()), objectOf(r)
	happened := audit.Happening{
		What: wish[r.Operation], By: r.UserInfo.Username, Time: now,
		Message: fmt.Sprintf("%s asked to %s %s", r.UserInfo.Username, strings.ToLower(string(r.Operation)), strings.TrimSuffix(r.Resource.Resource+" "+object.Name, " ")),
	}
	e := audit.Lifecycle(happened, *object, nil, now)
	e.Type, e.Grant = audit.TypeAct, grantOf(r)
	e.Verb, e.Replica = strings.ToLower(string(r.Operation)), v.replica
	e.User.UID, e.User.Groups = r.UserInfo.UID, r.UserInfo.Groups
	return e
}

// grantOf returns the grant that an object is, or is about.
func grantOf(r *admissionv1.AdmissionRequest) audit.Grant {
	raw := r.OldObject.Raw
	if len(raw) == 0 {
		raw = r.Object.Raw
	}
	known := &metav1.PartialObjectMetadata{}
	if json.Unmarshal(raw, known) != nil {
		return audit.Grant{}
	}
	switch r.Resource.Resource {
	case grantsResource:
		return audit.Grant{Namespace: r.Namespace, Name: known.Name, UID: string(known.UID)}
	case "rolebindings", "clusterrolebindings":
		return audit.Grant{
			Namespace: known.Labels[v1alpha1.LabelGrantNamespace], Name: known.Labels[v1alpha1.LabelGrant],
			UID: known.Annotations[v1alpha1.AnnotationGrantUID],
		}
	default:
		return audit.Grant{}
	}
}
