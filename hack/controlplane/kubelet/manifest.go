package kubelet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// FindDeployment returns the Deployment of that name from a manifest. An object without a namespace is in the one asked for.
func FindDeployment(manifest []byte, name types.NamespacedName) (*appsv1.Deployment, error) {
	deployments, err := Deployments(manifest)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, deployment := range deployments {
		if deployment.Namespace == "" {
			deployment.Namespace = name.Namespace
		}
		if deployment.Name == name.Name && deployment.Namespace == name.Namespace {
			return deployment, nil
		}
		names = append(names, deployment.Namespace+"/"+deployment.Name)
	}
	return nil, fmt.Errorf("find Deployment %s in the manifest: it has %q", name, names)
}

// Deployments returns all Deployments of a manifest.
func Deployments(manifest []byte) ([]*appsv1.Deployment, error) {
	var deployments []*appsv1.Deployment
	reader := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return deployments, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, fmt.Errorf("read the kind of an object: %w", err)
		}
		if kind.Kind != "Deployment" {
			continue
		}
		deployment := &appsv1.Deployment{}
		if err := yaml.UnmarshalStrict(document, deployment); err != nil {
			return nil, fmt.Errorf("read a Deployment: %w", err)
		}
		deployments = append(deployments, deployment)
	}
}

var (
	variable      = regexp.MustCompile(`\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)`)
	listenAddress = regexp.MustCompile(`(^|=)(?:0\.0\.0\.0)?:([0-9]+)$`)
)

// expand replaces $(NAME) by the value of a variable that is known and $$ by $, as the kubelet does.
func expand(text string, env map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(match string) string {
		if match == "$$" {
			return "$"
		}
		if value, known := env[match[2:len(match)-1]]; known {
			return value
		}
		return match
	})
}

// listenOnPodIP turns ":8080", which in a pod means the pod's address alone, into that address.
func (s *sandbox) listenOnPodIP(arg string) string {
	return listenAddress.ReplaceAllString(arg, "${1}"+s.pod.IP+":${2}")
}

// rewriteMounts turns paths below a mount into those on this machine, longest first.
func (s *sandbox) rewriteMounts(text string) string {
	var paths []string
	for path := range s.mounts {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return len(b) - len(a) })
	for _, path := range paths {
		mounted := regexp.MustCompile(`(^|[=,:])` + regexp.QuoteMeta(path) + `($|[/,:])`)
		here := strings.ReplaceAll(s.mounts[path], "$", "$$")
		text = mounted.ReplaceAllString(text, "${1}"+here+"${2}")
	}
	return text
}
