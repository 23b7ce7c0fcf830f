package gateway

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/partial"
)

func TestAProductSaysInWhichSectionItsKindsAreAndMayChangeItsMind(t *testing.T) {
	definition := partial.Definition()
	definition.Name = "mailboxes.mail.example"
	objects := fake.NewClientBuilder().WithScheme(runtime.NewScheme()).WithObjects(definition).Build()
	s := &sections{reader: objects, of: map[schema.GroupResource]audit.Section{}}
	for _, step := range []struct {
		word string
		want audit.Section
	}{{"", ""}, {"Users and permissions", audit.SectionUsers}, {"Everything", ""}, {"Content", audit.SectionContent}, {"", ""}} {
		definition.SetAnnotations(map[string]string{v1alpha1.AnnotationSection: step.word})
		if err := objects.Update(t.Context(), definition); err != nil {
			t.Fatal(err)
		}
		if _, err := s.look(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: definition.Name}}); err != nil {
			t.Fatal(err)
		}
		if got := s.find("mail.example", "mailboxes"); got != step.want {
			t.Errorf("a product that says %q is in section %q, want %q", step.word, got, step.want)
		}
		if got := s.find("other.example", "mailboxes"); got != "" {
			t.Errorf("another group's kind is in section %q", got)
		}
	}
	definition.SetAnnotations(map[string]string{v1alpha1.AnnotationSection: "Logs"})
	if err := objects.Update(t.Context(), definition); err != nil {
		t.Fatal(err)
	}
	for _, want := range []audit.Section{audit.SectionLogs, ""} {
		if _, err := s.look(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: definition.Name}}); err != nil {
			t.Fatal(err)
		}
		if got := s.find("mail.example", "mailboxes"); got != want {
			t.Errorf("it is in section %q, want %q", got, want)
		}
		if err := client.IgnoreNotFound(objects.Delete(t.Context(), definition)); err != nil {
			t.Fatal(err)
		}
	}
}
