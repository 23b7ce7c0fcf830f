package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"supportaccess.dev/operator/hack/controlplane"
)

const header = `# Who may write what

Everybody who could try, on every object of support access, with every verb. The API server gave these answers, in dry runs
with the chart installed and a grant open; the test in ` + "`test/matrix`" + ` asks again and holds this page to them. Written by
` + "`go test ./test/matrix -update`" + `: do not edit.

- **yes**: it is done.
- **·**: RBAC gives no such right.
- **refused**: RBAC would allow it, and an admission policy (or the quota) refuses.
- **fixed**: nobody may, the object's own rules refuse the change.

The namespace admin and the pipeline hold the built-in role ` + "`admin`" + ` in the grant's namespace, the pipeline as a ServiceAccount. The
engineer is the identity of the open grant. The gateway is on, and what it tries is of its own replica. The namespace-controller
and the garbage collector are kube-system's. Deleting a managed binding or a credential only takes access away, so whoever RBAC
lets may do it.

`

// page is the answers as a table.
func (s *scene) page() string {
	var b strings.Builder
	b.WriteString(header + "| what | verb |")
	for _, who := range s.actors {
		b.WriteString(" " + who.title + " |")
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(s.actors)) + "\n")
	for _, o := range s.targets() {
		for _, verb := range o.tries() {
			fmt.Fprintf(&b, "| %s | %s |", o.title, verb)
			for _, who := range s.actors {
				fmt.Fprintf(&b, " %s |", s.answers[key(o, verb, who.title)])
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestThePageSaysWhoMayWriteWhat(t *testing.T) {
	s := tried(t)
	root, err := controlplane.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "docs", "who-may-write-what.md")
	if *update {
		if err := os.WriteFile(path, []byte(s.page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: write it with -update", err)
	}
	before, after := strings.Split(string(want), "\n"), strings.Split(s.page(), "\n")
	for i := range max(len(before), len(after)) {
		var page, says string
		if i < len(before) {
			page = before[i]
		}
		if i < len(after) {
			says = after[i]
		}
		if page != says {
			t.Errorf("line %d of the page:\n\t%s\nthe API server says:\n\t%s", i+1, page, says)
		}
	}
}

// only asserts that nobody but those named may do something, whatever the page says, and that those may.
func (s *scene) only(t *testing.T, title string, verbs []string, those ...string) {
	t.Helper()
	for _, verb := range verbs {
		for _, who := range s.actors {
			got, known := s.answers[title+"|"+verb+"|"+who.title]
			if may := slices.Contains(those, who.title); !known || may != (got == yes) {
				t.Errorf("%s: %s by %s: %q, known %t", title, verb, who.title, got, known)
			}
		}
	}
}

func TestAuthorityIsNotForged(t *testing.T) {
	s := tried(t)
	changes := []string{"update", "patch"}
	// The controller has no more rights than it uses: it patches status and metadata.
	s.only(t, "SupportAccessGrant/status", []string{"patch"}, "controller")
	s.only(t, "SupportAccessGrant/status", []string{"update"})
	s.only(t, "SupportAccessDecision/status", []string{"patch"}, "controller")
	s.only(t, "SupportAccessDecision/status", []string{"update"})
	s.only(t, "SupportAccessGrant: what it gives", changes)
	s.only(t, "SupportAccessDecision: what it says", changes)
	s.only(t, "SupportAccessGrant", []string{"create"}, "cluster admin", "namespace admin")
}

func TestRecordsAreTheControllersAlone(t *testing.T) {
	s := tried(t)
	s.only(t, "SupportAccessRecord", []string{"create", "update"}, "controller")
	s.only(t, "SupportAccessRecord", []string{"patch"})
	s.only(t, "SupportAccessRecord", []string{"delete"}, "controller", "namespace-controller", "garbage collector")
}

func TestWhatIsKeptOfAuditLogsIsTheControllersAlone(t *testing.T) {
	s := tried(t)
	s.only(t, "what is kept of audit logs", []string{"update"}, "controller")
	s.only(t, "what is kept of audit logs", []string{"patch"})
	s.only(t, "what is kept of audit logs", []string{"delete"}, "controller", "namespace-controller", "garbage collector")
}

func TestTheBannerAndWhatBecameOfASettingAreTheControllersToWrite(t *testing.T) {
	s := tried(t)
	s.only(t, "banner ConfigMap", []string{"update"}, "controller")
	s.only(t, "banner ConfigMap", []string{"patch"})
	s.only(t, "SupportAccessSetting/status", []string{"patch"}, "controller")
	s.only(t, "SupportAccessSetting", []string{"update", "patch"}, "cluster admin", "namespace admin", "pipeline", "garbage collector")
}

func TestWhatIsAskedForIsEditedByNobodyAndClearedAwayByWhoMaySayNo(t *testing.T) {
	s := tried(t)
	changes := []string{"update", "patch"}
	s.only(t, "SupportAccessRequest/status", []string{"patch"}, "controller")
	s.only(t, "SupportAccessRequest: what it asks for", changes)
	s.only(t, "SupportAccessRequest", []string{"delete"}, "cluster admin", "namespace admin", "pipeline", "namespace-controller", "garbage collector")
}

func TestIdentitiesAndTheirBindingsAreTheControllersAlone(t *testing.T) {
	s := tried(t)
	s.only(t, "managed RoleBinding", []string{"create"}, "controller")
	s.only(t, "managed RoleBinding", []string{"patch"})
	for _, title := range []string{"credential Secret", "identity ServiceAccount", "credential's Role", "credential's RoleBinding"} {
		s.only(t, title, []string{"create"}, "controller")
	}
	s.only(t, "identity's token", []string{"create"}, "controller")
	s.only(t, "Pod beside the credentials", []string{"create"})
}

func TestEngineersAndStrangersWriteNothing(t *testing.T) {
	s := tried(t)
	for _, o := range s.targets() {
		for _, verb := range o.tries() {
			for _, who := range []string{"engineer", "stranger", "gateway"} {
				if who == "gateway" && o.title == "SupportAccessSession" && verb != "delete" {
					continue
				}
				if got := s.answers[key(o, verb, who)]; got == yes || got == "" {
					t.Errorf("%s: %s by %s: %q", o.title, verb, who, got)
				}
			}
		}
	}
}

func TestSessionsAreTheGatewaysAlone(t *testing.T) {
	s := tried(t)
	s.only(t, "SupportAccessSession", []string{"update"}, "gateway")
	s.only(t, "SupportAccessSession", []string{"patch"})
	s.only(t, "SupportAccessSession", []string{"delete"}, "controller", "namespace-controller", "garbage collector")
}
