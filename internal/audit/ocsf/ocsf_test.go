package ocsf

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"supportaccess.dev/operator/internal/audit"
)

var noon = metav1.NewMicroTime(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

func request(verb, subresource string, code int32) *audit.Entry {
	e := &audit.Entry{
		Seq: 7, Engineer: "ana@vendor.example", Case: "CASE-1", Section: audit.SectionSettings, DurationMillis: 12.7,
		Grant: audit.Grant{Namespace: "mail", Name: "case-1", UID: "u"}, Labels: map[string]string{audit.LabelSource: audit.Source},
		Event: auditv1.Event{
			AuditID: "a-1", Stage: auditv1.StageResponseComplete, Verb: verb, RequestURI: "/api/v1/namespaces/mail/configmaps/x", SourceIPs: []string{"192.0.2.7"},
			UserAgent: "kubectl", StageTimestamp: noon, RequestReceivedTimestamp: noon,
			ObjectRef:      &auditv1.ObjectReference{Resource: "configmaps", Namespace: "mail", Name: "x", APIVersion: "v1", Subresource: subresource},
			ResponseStatus: &metav1.Status{Code: code},
		},
	}
	e.User.Username = "supportaccess.dev:abc"
	return e
}

// encoded is what the schema demands of every event of the class, besides what a test asks for.
func encoded(t *testing.T, e *audit.Entry) map[string]any {
	t.Helper()
	text, err := Encode(e, "log.example/audit")
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	for _, required := range []string{"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint", "time", "type_uid"} {
		if out[required] == nil {
			t.Errorf("%s is missing in %s", required, text)
		}
	}
	if out["type_uid"].(float64) != out["class_uid"].(float64)*100+out["activity_id"].(float64) {
		t.Errorf("type_uid is %v", out["type_uid"])
	}
	if len(at(out, "src_endpoint").(map[string]any)) == 0 || at(out, "api", "operation") == "" || at(out, "metadata", "product", "vendor_name") == nil || at(out, "actor", "user", "name") == "" {
		t.Errorf("what the schema demands within is missing: %s", text)
	}
	return out
}

// at follows keys.
func at(value any, keys ...string) any {
	for _, key := range keys {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[key]
	}
	return value
}

func TestARequestIsAnAPIActivityThatSaysWhoDidWhatToWhatAndWhatBecameOfIt(t *testing.T) {
	out := encoded(t, request("get", "", 200))
	for _, want := range []struct {
		value any
		keys  []string
	}{
		{6003.0, []string{"class_uid"}}, {2.0, []string{"activity_id"}}, {"Read", []string{"activity_name"}}, {1.0, []string{"status_id"}}, {"200", []string{"status_code"}},
		{float64(noon.UnixMilli()), []string{"time"}}, {12.0, []string{"duration"}}, {"1.8.0", []string{"metadata", "version"}},
		{"log.example/audit/7", []string{"metadata", "original_event_uid"}}, {7.0, []string{"metadata", "sequence"}},
		{"ana@vendor.example", []string{"actor", "user", "name"}}, {"supportaccess.dev:abc", []string{"actor", "user", "uid"}},
		{"get", []string{"api", "operation"}}, {"a-1", []string{"api", "request", "uid"}}, {"192.0.2.7", []string{"src_endpoint", "ip"}},
		{"case-1", []string{"unmapped", "grant", "name"}}, {"CASE-1", []string{"unmapped", "case"}}, {"Settings", []string{"unmapped", "section"}},
	} {
		if got := at(out, want.keys...); got != want.value {
			t.Errorf("%v is %v, want %v", want.keys, got, want.value)
		}
	}
	resources, _ := out["resources"].([]any)
	if len(resources) != 1 || at(resources[0], "name") != "x" || at(resources[0], "type") != "configmaps" {
		t.Errorf("the resources are %v", resources)
	}
}

func TestEveryVerbHasItsActivityAndEveryOutcomeItsStatus(t *testing.T) {
	for verb, want := range map[string]float64{"create": 1, "get": 2, "list": 2, "watch": 2, "update": 3, "patch": 3, "delete": 4, "deletecollection": 4, "connect": 99} {
		if got := encoded(t, request(verb, "", 200))["activity_id"]; got != want {
			t.Errorf("%s is activity %v, want %v", verb, got, want)
		}
	}
	// Kubernetes calls a stream into a pod a get or a create.
	for _, subresource := range []string{"exec", "attach"} {
		if got := encoded(t, request("get", subresource, 101))["activity_id"]; got != 99.0 {
			t.Errorf("%s is activity %v", subresource, got)
		}
	}
	for code, want := range map[int32]float64{200: 1, 403: 2, 500: 2} {
		if got := encoded(t, request("get", "", code))["status_id"]; got != want {
			t.Errorf("%d has status %v, want %v", code, got, want)
		}
	}
}

func TestWhatHappenedToAGrantIsAnEventToo(t *testing.T) {
	e := audit.Lifecycle(audit.Happening{What: "Granted", By: "tess", Time: noon, Message: "ana may look"},
		auditv1.ObjectReference{APIGroup: "supportaccess.dev", Resource: "supportaccessgrants", Namespace: "mail", Name: "case-1"}, nil, noon)
	out := encoded(t, e)
	if at(out, "api", "operation") != "Granted" || at(out, "actor", "user", "name") != "tess" || out["message"] != "ana may look" || out["activity_id"] != 99.0 || at(out, "metadata", "event_code") != "Lifecycle" {
		t.Errorf("it is %v", out)
	}
	encoded(t, &audit.Entry{Type: audit.TypeKeys, Seq: 1})
}
