// Package admission tries to get past the admission policies of config/admission on a real API server, as the people
// and ServiceAccounts who would. Every attempt stands beside one that differs in one point and is let through.
package admission

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"supportaccess.dev/operator/api/v1alpha1"
	"supportaccess.dev/operator/config/admission"
	"supportaccess.dev/operator/hack/controlplane"
)

const startTimeout = 10 * time.Minute

// w is the one cluster of this package. Building another for every test would take minutes.
var w *world

func TestMain(m *testing.M) {
	code, err := runIn(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func runIn(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cp, err := controlplane.Start(ctx, controlplane.Options{Log: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	if err := build(ctx, cp); err != nil {
		return 0, err
	}
	if code = m.Run(); code != 0 || flag.Lookup("test.run").Value.String() != "" {
		return code, nil
	}
	return code, w.unheard()
}

// build makes the world. The admission objects come last, so that the engineers can be given rights they must not have:
// what is tested is that admission stops them nevertheless.
func build(ctx context.Context, cp *controlplane.ControlPlane) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return fmt.Errorf("build the scheme: %w", err)
		}
	}
	log.SetLogger(logr.Discard())
	w = &world{cp: cp, scheme: scheme}
	root, err := w.person("cluster-admin@local", cp.AdminConfig(), rest.NoWarnings{})
	if err != nil {
		return err
	}
	w.root = root
	steps := []func(context.Context) error{
		w.applyCRDs, w.applyFixture, w.meetPeople, w.measureFloor, w.applyAdmission,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) applyCRDs(ctx context.Context) error {
	crds, err := readCRDs()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := w.root.Create(ctx, crd); err != nil {
			return fmt.Errorf("create CRD %s: %w", crd.Name, err)
		}
	}
	return w.waitForCRDs(ctx)
}

func readCRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	paths, err := filepath.Glob("../../config/crd/*.yaml")
	if err != nil {
		return nil, err
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, path := range paths {
		if filepath.Base(path) == "kustomization.yaml" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(content, crd); err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		crds = append(crds, crd)
	}
	return crds, nil
}

// waitForCRDs waits until each kind can be listed.
func (w *world) waitForCRDs(ctx context.Context) error {
	lists := []client.ObjectList{
		&v1alpha1.SupportAccessGrantList{}, &v1alpha1.SupportAccessDecisionList{},
		&v1alpha1.SupportAccessPolicyList{}, &v1alpha1.SupportAccessRecordList{},
	}
	return until(ctx, "the kinds are served", func() error {
		for _, list := range lists {
			if err := w.root.List(ctx, list); err != nil {
				return err
			}
		}
		return nil
	})
}

// applyAdmission creates the admission objects and waits until they are in force. It remembers how long that took.
func (w *world) applyAdmission(ctx context.Context) error {
	objects, err := admission.Objects(admission.Options{Stamp: true})
	if err != nil {
		return err
	}
	w.shipped = objects
	for _, object := range objects {
		if err := w.root.Create(ctx, object.DeepCopyObject().(client.Object)); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	created := time.Now()
	err = until(ctx, "the canary is refused", func() error {
		err := w.controller.Create(ctx, admission.CanaryGrant(), client.DryRunAll)
		if !admission.CanaryRefused(err) {
			return fmt.Errorf("the canary: %v", err)
		}
		return nil
	})
	w.canaryAfter = time.Since(created)
	if err != nil {
		return err
	}
	// The stamp's policy is one of many, and each is taken over at its own instant.
	err = w.waitUntilAllHold(ctx)
	w.inForceAfter = time.Since(created)
	return err
}

func (w *world) namespaces() []*corev1.Namespace {
	var namespaces []*corev1.Namespace
	for name, policy := range map[string]string{
		v1alpha1.SystemNamespace: "", v1alpha1.CredentialsNamespace: "",
		mail: "", shop: "", named: "strict", lost: "nowhere", wide: "wide", frozen: "frozen", pipelines: "",
	} {
		namespace := &corev1.Namespace{}
		namespace.Name = name
		if policy != "" {
			namespace.Labels = map[string]string{v1alpha1.LabelPolicy: policy}
		}
		namespaces = append(namespaces, namespace)
	}
	return namespaces
}
