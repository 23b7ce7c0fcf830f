package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func noFiles(string) ([]byte, error) { return nil, errors.New("there are no files") }

// asked is a wish that is good as it is.
func asked(change func(*wish)) wish {
	w := wish{namespace: gen.Namespace, engineers: []string{gen.Engineer}, length: "24h", caseID: gen.CaseID, why: "it is broken"}
	change(&w)
	return w
}

func TestAGrantIsWhatTheFlagsSay(t *testing.T) {
	until := metav1.NewTime(gen.Epoch.Add(10 * time.Hour))
	start := metav1.NewTime(gen.Epoch.Add(time.Hour))
	for sentence, c := range map[string]struct {
		change func(*wish)
		want   func(*v1alpha1.SupportAccessGrant)
	}{
		"what is left out stays empty": {func(*wish) {}, func(*v1alpha1.SupportAccessGrant) {}},
		"a name wins over the case":    {func(w *wish) { w.name = "mine" }, func(g *v1alpha1.SupportAccessGrant) { g.Name = "mine" }},
		"without a case there is none": {func(w *wish) { w.name, w.caseID = "mine", "" },
			func(g *v1alpha1.SupportAccessGrant) { g.Name, g.Spec.Case = "mine", nil }},
		"an end instead of a length": {func(w *wish) { w.length, w.until = "", "2026-12-01T19:00Z" },
			func(g *v1alpha1.SupportAccessGrant) { g.Spec.Duration, g.Spec.ExpirationTime = "", &until }},
		"a start": {func(w *wish) { w.start = "2026-12-01T11:00+01:00" }, func(g *v1alpha1.SupportAccessGrant) { g.Spec.StartTime = &start }},
		"a link to the case": {func(w *wish) { w.caseURL = "https://vendor.example/1" },
			func(g *v1alpha1.SupportAccessGrant) { g.Spec.Case.URL = "https://vendor.example/1" }},
		"roles": {func(w *wish) { w.roles = []string{"a", "b"} }, func(g *v1alpha1.SupportAccessGrant) { g.Spec.Roles = []string{"a", "b"} }},
		"namespaces": {func(w *wish) { w.toNamespaces = []string{"a", "b"} },
			func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Namespaces: []string{"a", "b"}} }},
		"flagged content": {func(w *wish) { w.roles = []string{v1alpha1.FlaggedRole} }, func(g *v1alpha1.SupportAccessGrant) {
			g.Spec.Roles, g.Spec.FlaggedContent = []string{v1alpha1.FlaggedRole}, v1alpha1.FlaggedContentAllow
		}},
		"the cluster": {func(w *wish) { w.toCluster = true }, func(g *v1alpha1.SupportAccessGrant) { g.Spec.Scope = &v1alpha1.Scope{Cluster: true} }},
		"a transport": {func(w *wish) { w.transport = "gateway" }, func(g *v1alpha1.SupportAccessGrant) { g.Spec.Transport = v1alpha1.TransportGateway }},
		"two engineers": {func(w *wish) { w.engineers = append(w.engineers, "ben@vendor.example="+sshKey) },
			func(g *v1alpha1.SupportAccessGrant) {
				g.Spec.Engineers = append(g.Spec.Engineers, v1alpha1.Engineer{Name: "ben@vendor.example", PublicKey: sshKey})
			}},
	} {
		want := gen.ToApply("case-4711", gen.Namespace, gen.WithReason("it is broken"), gen.WithTransport(""), c.want)
		got, err := asked(c.change).grant(gen.Epoch, noFiles)
		if err != nil || !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", sentence, got, err, want)
		}
	}
}

func TestABadFlagIsSaidInASentenceThatNamesIt(t *testing.T) {
	for want, change := range map[string]func(*wish){
		"NAME: \"Mine\": write at most 63 lower-case letters": func(w *wish) { w.name = "Mine" },
		"NAME: \"a.b\"":                                        func(w *wish) { w.name = "a.b" },
		"NAME: is missing: give it, or --case":                 func(w *wish) { w.caseID = "" },
		"NAME: is missing, and of --case ### none can be made": func(w *wish) { w.caseID = "###" },
		"--engineer: is missing":                               func(w *wish) { w.engineers = nil },
		"--engineer: ana@vendor.example is named twice":        func(w *wish) { w.engineers = []string{gen.Engineer, gen.Engineer} },
		"--for, --until: give one of them, not both":           func(w *wish) { w.until = "2026-12-01T18:00Z" },
		"--for, --until: give one of them":                     func(w *wish) { w.length = "" },
		"--for: 3d: days and weeks are not units: write 72h":   func(w *wish) { w.length = "3d" },
		"--until: 2026-12-01T09:00Z has passed":                func(w *wish) { w.length, w.until = "", "2026-12-01T09:00Z" },
		"--start: 2026-12-01T19:00Z: must be before --until":   func(w *wish) { w.length, w.until, w.start = "", "2026-12-01T19:00Z", "2026-12-01T19:00Z" },
		"--start: \"now\" is no instant":                       func(w *wish) { w.start = "now" },
		"--case-url: is given with --case, and only then":      func(w *wish) { w.name, w.caseID, w.caseURL = "mine", "", "https://vendor.example/1" },
		"--case-url: http://vendor.example: https:// only":     func(w *wish) { w.caseURL = "http://vendor.example" },
		"--reason: is missing":                                 func(w *wish) { w.why = "" },
		"--to-namespace, --to-cluster: give one of them":       func(w *wish) { w.toCluster, w.toNamespaces = true, []string{"a"} },
		"--transport: tunnel: write gateway or direct":         func(w *wish) { w.transport = "tunnel" },
	} {
		got, err := asked(change).grant(gen.Epoch, noFiles)
		if err == nil || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := wish{}.grant(gen.Epoch, noFiles)
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not all that is missing is said at once: %v", err)
	}
}

func TestANameIsMadeOfTheCase(t *testing.T) {
	long := strings.Repeat("x", 64)
	for caseID, want := range map[string]string{
		"CASE-4711": "case-4711", "#4711": "4711", "ACME/2026:17": "acme-2026-17", "--a__b--": "a-b", "###": "", long: long[:maxName],
		strings.Repeat("x", maxName-1) + "-y": strings.Repeat("x", maxName-1),
	} {
		if got := nameOf(caseID); got != want {
			t.Errorf("%s: got %q, want %q", caseID, got, want)
		}
	}
}

func TestTheFirstNameThatNobodyUsedIsTaken(t *testing.T) {
	used := map[string]bool{}
	for _, want := range []string{"case-1", "case-1-2", "case-1-3"} {
		if got := firstFree("case-1", used); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		used[want] = true
	}
}
