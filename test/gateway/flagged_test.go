package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
	"supportaccess.dev/operator/test/world"
)

const (
	mailGroup = "mail-archive.vendor.example"
	ofMails   = "/apis/" + mailGroup + "/v1/namespaces/" + tenant + "/mails"
	// canary is what no engineer may see of a mail that bears no flag.
	canary = "canary-of-a-mail"
)

// flaggedMails is what the policy releases.
func flaggedMails() map[string]any {
	return map[string]any{
		"resources": []any{map[string]any{"group": mailGroup, "resource": "mails"}},
		"selector": map[string]any{"matchExpressions": []any{map[string]any{
			"key": v1alpha1.LabelFlagged, "operator": "In", "values": []any{"malware", "phishing", "spam", "untrustworthy"},
		}}},
	}
}

// mailbox has the product keep mails, of which flagged ones may be read, and a scanner that flags them. Tess may edit them.
func (s *scene) mailbox(t *testing.T) {
	t.Helper()
	preserve := true
	definition := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: mailGroup, Scope: apiextensionsv1.NamespaceScoped,
		Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "mails", Singular: "mail", Kind: "Mail", ListKind: "MailList"},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
			Name: "v1", Served: true, Storage: true, Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &preserve}},
		}},
	}}
	definition.Name = "mails." + mailGroup
	all := []string{"get", "list", "watch", "create", "update", "patch"}
	flagged := gen.ClusterRole("mail-archive-flagged", gen.Rule(mailGroup, []string{"mails", "mails/status"}, []string{"get", "list", "watch"}), gen.Rule("", []string{"secrets"}, []string{"get"}))
	flagged.Labels = map[string]string{"supportaccess.dev/aggregate-to-flagged": "true"}
	through := []string{"impersonate-on:user-info:get", "impersonate-on:user-info:list", "impersonate-on:user-info:watch"}
	ceiling := gen.ClusterRole("mail-archive-flagged-gateway-ceiling", gen.Rule(mailGroup, []string{"mails", "mails/status"}, through))
	ceiling.Labels = map[string]string{"supportaccess.dev/aggregate-to-gateway-ceiling": "true"}
	edits := gen.ClusterRole("mails-edit", gen.Rule(mailGroup, []string{"mails"}, all))
	flags := gen.ClusterRole("mails-flag", gen.Rule("supportaccess.dev", []string{"supportaccessgrants"}, []string{"flag"}))
	objects := []client.Object{definition, flagged, ceiling, edits, flags}
	for role, users := range map[string][]string{"mails-edit": {tess, "scanner"}, "mails-flag": {"scanner"}} {
		for _, user := range users {
			b := &rbacv1.RoleBinding{
				RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
			}
			b.Namespace, b.Name = tenant, role+"-"+strings.ReplaceAll(user, "@", "-")
			objects = append(objects, b)
		}
	}
	for _, object := range objects {
		if err := s.Admin.Create(t.Context(), object); client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
}

func mail(name string) *unstructured.Unstructured {
	m := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"body": canary + " " + name}}}
	m.SetGroupVersionKind(schema.GroupVersionKind{Group: mailGroup, Version: "v1", Kind: "Mail"})
	m.SetNamespace(tenant)
	m.SetName(name)
	return m
}

// flags has somebody flag a mail, or take the flag off.
func flags(t *testing.T, who client.Client, name, flag string) error {
	t.Helper()
	value := "null"
	if flag != "" {
		value = fmt.Sprintf("%q", flag)
	}
	return who.Patch(t.Context(), mail(name), client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, v1alpha1.LabelFlagged, value)))
}

func TestFlaggedContentIsReadByNameThroughTheGatewayAndWhatBearsNoFlagIsNot(t *testing.T) {
	s := newScene(t)
	s.mailbox(t)
	scanner := s.ClientFor(t, s.Config("scanner"))
	for _, name := range []string{"bad", "clean", "other"} {
		world.Eventually(t, "mail "+name+" is kept", func() error { return client.IgnoreAlreadyExists(scanner.Create(t.Context(), mail(name))) })
	}
	// Whoever may edit mails and not flag them opens none.
	world.Eventually(t, "the guard of flags is in force", func() error {
		err := flags(t, s.tess, "clean", "malware")
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "lacks the verb flag on supportaccessgrants in namespace "+tenant) {
			return fmt.Errorf("Tess flags a mail: %w", err)
		}
		return nil
	})
	for name, flag := range map[string]string{"bad": "malware", "other": "bulk"} {
		if err := flags(t, scanner, name, flag); err != nil {
			t.Fatal(err)
		}
	}
	g := s.grants(t, "case-flagged", gen.WithCase("CASE-1"), gen.AllowingFlagged(gen.Configuration, maintenance))
	world.Eventually(t, "the engineer reads the mail that bears a flag", func() error {
		out, err := g.kubectl(t, "get", "mail", "bad", "--output", "yaml")
		if err == nil && !strings.Contains(out, canary+" bad") {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
	if out, err := g.kubectl(t, "get", "mail", "bad"); err != nil || !strings.Contains(out, "bad") {
		t.Errorf("as a table: %s, %v", out, err)
	}
	if out, err := g.kubectl(t, "describe", "mail", "clean"); err == nil || strings.Contains(out+err.Error(), canary) {
		t.Errorf("a mail without a flag: %s, %v", out, err)
	}
	s.nothingElseIsReleased(t, g)

	// The flag is judged in the very answer.
	if err := flags(t, scanner, "bad", ""); err != nil {
		t.Fatal(err)
	}
	if code, body := g.reads(t, "h2", http.MethodGet, ofMails+"/bad", nil); code != http.StatusForbidden || strings.Contains(body, canary) {
		t.Errorf("once the flag is off: %d %s", code, body)
	}
	// An engineer opens nothing by a flag of the engineer's own, whatever may be edited.
	out, err := g.kubectl(t, "label", "configmap", "imap", v1alpha1.LabelFlagged+"=malware")
	if err == nil || !strings.Contains(err.Error(), "(Forbidden): configmaps") {
		t.Errorf("an engineer sets a flag: %s, %v", out, err)
	}
	s.flaggedIsOnRecord(t)

	direct := gen.ToApply("case-flagged-direct", tenant, gen.WithDuration("30m"), gen.WithCase("CASE-1"), gen.AllowingFlagged(gen.Configuration), gen.WithTransport(v1alpha1.TransportDirect))
	if err := s.tess.Create(t.Context(), direct); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "Direct is not for flaggedContent") {
		t.Errorf("Direct: %v", err)
	}
}

// nothingElseIsReleased asks in every way for what bears no flag, and for flagged mail in the ways in which it is not given.
func (s *scene) nothingElseIsReleased(t *testing.T, g *grant) {
	t.Helper()
	words := map[string]bool{}
	for _, protocol := range []string{"h2", "http/1.1"} {
		for _, name := range []string{"clean", "other", "missing", "bad.", "bad,clean", "bad%20", "BAD"} {
			code, body := g.reads(t, protocol, http.MethodGet, ofMails+"/"+name, nil)
			if code != http.StatusForbidden || strings.Contains(body, canary) {
				t.Errorf("%s, %s: %d %s", protocol, name, code, body)
			}
			words[body] = true
		}
		for _, asked := range []string{
			"GET " + ofMails, "GET " + ofMails + "?labelSelector=supportaccess.dev%2Fflagged%3Dmalware", "GET " + ofMails + "?fieldSelector=metadata.name%3Dbad",
			"GET " + ofMails + "?watch=1&fieldSelector=metadata.name%3Dbad", "GET " + ofMails + "/bad?watch=1", "GET " + ofMails + "/bad/status", "GET " + ofMails + "/bad?resourceVersion=0",
			"GET " + ofMails + "/clean?resourceVersion=1", "HEAD " + ofMails + "/bad", "PUT " + ofMails + "/bad", "PATCH " + ofMails + "/bad?dryRun=All", "DELETE " + ofMails + "/bad?dryRun=All",
			"GET /apis/" + mailGroup + "/v1/mails", "GET /apis/" + mailGroup + "/v1/watch/namespaces/" + tenant + "/mails/bad", "GET /api/v1/namespaces/" + tenant + "/secrets/imap",
			"GET /apis/" + mailGroup + "/v1/namespaces/" + tenant + "-index/mails/bad",
		} {
			method, target, _ := strings.Cut(asked, " ")
			if code, body := g.reads(t, protocol, method, target, nil); code != http.StatusForbidden || strings.Contains(body, canary) {
				t.Errorf("%s, %s: %d %s", protocol, asked, code, body)
			}
		}
		// In whatever form it is asked for, conditionally or not, what comes is the whole object as it is now.
		for _, header := range []http.Header{
			{"Accept": {"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}}, {"Accept": {"application/cbor"}}, {"If-None-Match": {"*"}}, {"Range": {"bytes=0-10"}}, {"Accept-Encoding": {"gzip"}},
		} {
			if code, body := g.reads(t, protocol, http.MethodGet, ofMails+"/b%61d", header); code != http.StatusOK || !strings.Contains(body, canary+" bad") {
				t.Errorf("%s, %v: %d %s", protocol, header, code, body)
			}
		}
	}
	if len(words) != 1 {
		t.Errorf("what is withheld is told of in %d ways: %v", len(words), words)
	}
}

// reads makes a request as the engineer and returns what comes.
func (g *grant) reads(t *testing.T, protocol, method, target string, header http.Header) (int, string) {
	t.Helper()
	config := g.config(t)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: protocol == "h2", DisableCompression: true}
	if protocol != "h2" {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, config.Host+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header.Clone()
	}
	r.Header.Set("Authorization", "Bearer "+config.BearerToken)
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return response.StatusCode, string(body)
}

// flaggedIsOnRecord finds what was released and what was withheld in the log, as content.
func (s *scene) flaggedIsOnRecord(t *testing.T) {
	t.Helper()
	world.Eventually(t, "what was released and what was not is on record", func() error {
		found := map[string]string{}
		for _, entry := range s.entries(t) {
			about, _, _ := unstructured.NestedMap(entry, "objectRef")
			if about["resource"] == "mails" && entry["flagged"] != nil {
				found[fmt.Sprint(about["name"], " ", entry["flagged"])] = fmt.Sprint(entry["section"])
			}
		}
		for _, want := range []string{"bad Released", "clean Withheld", "missing Withheld", "bad Withheld"} {
			if found[want] != "Content" {
				return fmt.Errorf("%s is in section %q: %v", want, found[want], found)
			}
		}
		return nil
	})
}
