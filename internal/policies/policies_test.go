package policies

import (
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/test/gen"
)

func TestThePolicyOfANamespaceIsTheOneThatItsLabelNamesOrTheDefault(t *testing.T) {
	c := reader(t, nil)
	for label, want := range map[string]struct {
		name  string
		there bool
	}{
		"":       {"default", true},
		"strict": {"strict", true},
		"loose":  {"loose", false},
	} {
		got, err := Of(t.Context(), c, labelled(label))
		if err != nil || got.Name != want.name || got.Gone || (got.Policy != nil) != want.there {
			t.Errorf("label %q: got %+v, %v, want policy %s, there: %t", label, got, err, want.name, want.there)
		}
		if got.Policy != nil && got.Policy.Name != want.name {
			t.Errorf("label %q: got policy %s", label, got.Policy.Name)
		}
	}
}

func TestWhereThereIsNotEvenTheKindThatIsSaidAndWhatCannotBeReadIsAnotherError(t *testing.T) {
	got, err := Of(t.Context(), reader(t, &meta.NoKindMatchError{}), labelled(""))
	if !errors.Is(err, ErrNoKind) || got.Policy != nil || got.Name != v1alpha1.DefaultPolicyName {
		t.Errorf("without the kind: %+v, %v", got, err)
	}
	if _, err := Of(t.Context(), reader(t, errors.New("the line is down")), labelled("strict")); err == nil || errors.Is(err, ErrNoKind) || !strings.Contains(err.Error(), `policy "strict": the line is down`) {
		t.Errorf("it cannot be read: %v", err)
	}
}

func labelled(policy string) *metav1.PartialObjectMetadata {
	namespace := &metav1.PartialObjectMetadata{}
	if policy != "" {
		namespace.Labels = map[string]string{v1alpha1.LabelPolicy: policy}
	}
	return namespace
}

// reader has two policies, and answers with an error where there is one.
func reader(t *testing.T, failing error) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(gen.Policy("default"), gen.Policy("strict")).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if failing != nil {
				return failing
			}
			return c.Get(ctx, key, o, opts...)
		},
	}).Build()
}
