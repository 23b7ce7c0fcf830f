package gateway

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/access"
	"supportaccess.dev/operator/internal/audit"
)

// aDeletion is what the API server tells when tess deletes a grant.
func aDeletion() *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{
		UID: "told", Operation: admissionv1.Delete, Namespace: "tenant", Name: "case-1",
		Resource:  metav1.GroupVersionResource{Group: v1alpha1.GroupVersion.Group, Version: "v1alpha1", Resource: "supportaccessgrants"},
		UserInfo:  authenticationv1.UserInfo{Username: "tess@customer.example", UID: "u-tess", Groups: []string{"admins"}},
		OldObject: runtime.RawExtension{Raw: []byte(`{"metadata":{"namespace":"tenant","name":"case-1","uid":"u-1"}}`)},
	}
}

func TestWhoDeletesAGrantOrItsBindingIsPutDown(t *testing.T) {
	w, h := reviewing(t)
	binding := aDeletion()
	binding.Name, binding.Resource = "b", metav1.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
	binding.OldObject.Raw = []byte(`{"metadata":{"name":"b","labels":{"supportaccess.dev/grant":"case-1","supportaccess.dev/grant-namespace":"tenant"},` +
		`"annotations":{"supportaccess.dev/grant-uid":"u-1"}}}`)
	for i, r := range []*admissionv1.AdmissionRequest{aDeletion(), binding} {
		if response := told(t, h, access.PathOfActs([]byte(webhookKey)), r); !response.Allowed {
			t.Fatalf("it is refused: %+v", response.Result)
		}
		entries := w.log.all()
		if len(entries) != i+1 {
			t.Fatalf("there are %d entries", len(entries))
		}
		e := entries[i]
		if e.Type != audit.TypeAct || e.Happened.What != "DeletionAsked" || e.Happened.By != "tess@customer.example" || e.Verb != "delete" {
			t.Errorf("the entry is of type %q, verb %q, and says %+v", e.Type, e.Verb, e.Happened)
		}
		if e.User.UID != "u-tess" || !slices.Equal(e.User.Groups, []string{"admins"}) {
			t.Errorf("who did it is %+v", e.User)
		}
		if want := (audit.Grant{Namespace: "tenant", Name: "case-1", UID: "u-1"}); e.Grant != want {
			t.Errorf("the grant is %+v", e.Grant)
		}
		if e.ObjectRef.Resource != r.Resource.Resource || e.ObjectRef.Name != r.Name {
			t.Errorf("the object is %+v", e.ObjectRef)
		}
	}
}

func TestWhoChangesAPolicyIsPutDownAndATrialIsNot(t *testing.T) {
	w, h := reviewing(t)
	r := aDeletion()
	r.Operation, r.Namespace, r.Name, r.Resource.Resource = admissionv1.Update, "", "default", "supportaccesspolicies"
	trial := *r
	trial.DryRun = new(true)
	for _, r := range []*admissionv1.AdmissionRequest{&trial, r} {
		if !told(t, h, access.PathOfActs([]byte(webhookKey)), r).Allowed {
			t.Error("it is refused")
		}
	}
	entries := w.log.all()
	if len(entries) != 1 || entries[0].Happened.What != "ChangeAsked" || entries[0].Grant != (audit.Grant{}) {
		t.Errorf("the entries are %+v", entries)
	}
}

func TestWhatCannotBePutDownIsDoneAllTheSame(t *testing.T) {
	w, h := reviewing(t)
	w.log.fail()
	if !told(t, h, access.PathOfActs([]byte(webhookKey)), aDeletion()).Allowed {
		t.Error("an admin may not delete a grant because the log is full")
	}
}

func TestWhoDoesNotKnowThePathTellsNothing(t *testing.T) {
	w, h := reviewing(t)
	for _, path := range []string{access.ActsPath, access.PathOfActs([]byte("another key")), "/acts"} {
		recorded := httptest.NewRecorder()
		body := strings.NewReader(`{"request":{"uid":"told","operation":"DELETE","userInfo":{"username":"tess@customer.example"}}}`)
		h.ServeHTTP(recorded, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, body))
		if recorded.Code != http.StatusNotFound || len(w.log.all()) != 0 {
			t.Errorf("%s is answered %d, and there are %d entries", path, recorded.Code, len(w.log.all()))
		}
	}
}
