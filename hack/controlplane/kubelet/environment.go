package kubelet

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// environment resolves the container's variables, in order: each may use the ones before it.
func (s *sandbox) environment(ctx context.Context) (map[string]string, error) {
	env := map[string]string{}
	for _, source := range s.container.EnvFrom {
		if err := s.addAll(ctx, env, source); err != nil {
			return nil, err
		}
	}
	for _, variable := range s.container.Env {
		value, found, err := s.value(ctx, variable, env)
		if err != nil {
			return nil, fmt.Errorf("resolve variable %s: %w", variable.Name, err)
		}
		if found {
			env[variable.Name] = s.rewriteMounts(value)
		}
	}
	return env, nil
}

func (s *sandbox) addAll(ctx context.Context, env map[string]string, source corev1.EnvFromSource) error {
	switch {
	case source.ConfigMapRef != nil:
		data, err := s.configMap(ctx, source.ConfigMapRef.Name, source.ConfigMapRef.Optional)
		if err != nil {
			return err
		}
		for key, value := range data {
			env[source.Prefix+key] = string(value)
		}
	case source.SecretRef != nil:
		data, err := s.secret(ctx, source.SecretRef.Name, source.SecretRef.Optional)
		if err != nil {
			return err
		}
		for key, value := range data {
			env[source.Prefix+key] = string(value)
		}
	}
	return nil
}

func (s *sandbox) value(ctx context.Context, variable corev1.EnvVar, env map[string]string) (string, bool, error) {
	from := variable.ValueFrom
	switch {
	case from == nil:
		return expand(variable.Value, env), true, nil
	case from.FieldRef != nil:
		value, err := s.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := s.resource(from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		data, err := s.configMap(ctx, from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Optional)
		return pick(data, from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Optional, err)
	case from.SecretKeyRef != nil:
		data, err := s.secret(ctx, from.SecretKeyRef.Name, from.SecretKeyRef.Optional)
		return pick(data, from.SecretKeyRef.Key, from.SecretKeyRef.Optional, err)
	default:
		return "", false, fmt.Errorf("the source %+v cannot be played", from)
	}
}

func pick(data map[string][]byte, key string, optional *bool, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, found := data[key]
	if !found && !isTrue(optional) {
		return "", false, fmt.Errorf("there is no key %q", key)
	}
	return string(value), found, nil
}

// field is the downward API.
func (s *sandbox) field(path string) (string, error) {
	fields := map[string]string{
		"metadata.name":           s.pod.Name,
		"metadata.namespace":      s.pod.Namespace,
		"metadata.uid":            s.uid,
		"spec.nodeName":           "local",
		"spec.serviceAccountName": s.serviceAccount(),
		"status.podIP":            s.pod.IP,
		"status.podIPs":           s.pod.IP,
		"status.hostIP":           "127.0.0.1",
	}
	value, known := fields[path]
	if !known {
		return "", fmt.Errorf("the field %q cannot be played", path)
	}
	return value, nil
}

func (s *sandbox) resource(ref *corev1.ResourceFieldSelector) (string, error) {
	amounts := corev1.ResourceList{
		"limits.cpu":      s.container.Resources.Limits[corev1.ResourceCPU],
		"limits.memory":   s.container.Resources.Limits[corev1.ResourceMemory],
		"requests.cpu":    s.container.Resources.Requests[corev1.ResourceCPU],
		"requests.memory": s.container.Resources.Requests[corev1.ResourceMemory],
	}
	amount, known := amounts[corev1.ResourceName(ref.Resource)]
	if !known || amount.IsZero() {
		return "", fmt.Errorf("the container sets no %q", ref.Resource)
	}
	divisor := ref.Divisor.MilliValue()
	if divisor == 0 {
		divisor = 1000
	}
	return strconv.FormatInt((amount.MilliValue()+divisor-1)/divisor, 10), nil
}

func (s *sandbox) serviceAccount() string {
	if s.spec.ServiceAccountName == "" {
		return "default"
	}
	return s.spec.ServiceAccountName
}

// configMap reads a ConfigMap from the cluster; one that is optional may be missing.
func (s *sandbox) configMap(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := s.client.CoreV1().ConfigMaps(s.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get ConfigMap %q: %w", name, err)
	}
	data := map[string][]byte{}
	for key, value := range object.Data {
		data[key] = []byte(value)
	}
	maps.Copy(data, object.BinaryData)
	return data, nil
}

// secret reads a Secret from the cluster; one that is optional may be missing.
func (s *sandbox) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := s.client.CoreV1().Secrets(s.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get Secret %q: %w", name, err)
	}
	return object.Data, nil
}

func isTrue(value *bool) bool { return value != nil && *value }
