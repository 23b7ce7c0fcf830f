package kubelet

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"supportaccess.dev/operator/hack/controlplane"
)

const (
	// tokenPath is where a container finds its ServiceAccount. Tests cannot write there, so a kubeconfig stands in for it.
	tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// The tokens last as long as what they are for; nothing here renews them.
	tokenSeconds         = 24 * 60 * 60
	detachedTokenSeconds = 365 * tokenSeconds
)

// mountVolumes writes the volumes' files and notes where each mount is on this machine.
func (s *sandbox) mountVolumes(ctx context.Context) error {
	dirs := map[string]string{}
	for _, volume := range s.spec.Volumes {
		dir := filepath.Join(s.pod.Dir, "volumes", volume.Name)
		if err := s.makeVolume(dir, volume.VolumeSource); err != nil {
			return fmt.Errorf("create volume %q: %w", volume.Name, err)
		}
		files, err := s.files(ctx, volume.VolumeSource)
		if err != nil {
			return fmt.Errorf("fill volume %q: %w", volume.Name, err)
		}
		if err := writeFiles(dir, files); err != nil {
			return fmt.Errorf("fill volume %q: %w", volume.Name, err)
		}
		dirs[volume.Name] = dir
	}
	for _, mount := range s.container.VolumeMounts {
		dir, known := dirs[mount.Name]
		if !known {
			return fmt.Errorf("mount %q: there is no such volume", mount.Name)
		}
		s.mounts[filepath.Clean(mount.MountPath)] = filepath.Join(dir, mount.SubPath)
	}
	return nil
}

// makeVolume makes a volume's folder. What is claimed outlives the pod: it lies beside the pods' folders.
func (s *sandbox) makeVolume(dir string, source corev1.VolumeSource) error {
	if source.PersistentVolumeClaim == nil {
		return os.MkdirAll(dir, 0o700)
	}
	claimed := filepath.Join(filepath.Dir(s.pod.Dir), "claims", source.PersistentVolumeClaim.ClaimName)
	for _, folder := range []string{claimed, filepath.Dir(dir)} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	return os.Symlink(claimed, dir)
}

// files returns a volume's content by path.
func (s *sandbox) files(ctx context.Context, source corev1.VolumeSource) (map[string][]byte, error) {
	switch {
	case source.EmptyDir != nil, source.PersistentVolumeClaim != nil:
		return nil, nil
	case source.ConfigMap != nil:
		data, err := s.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional)
		return project(data, source.ConfigMap.Items, source.ConfigMap.Optional, err)
	case source.Secret != nil:
		data, err := s.secret(ctx, source.Secret.SecretName, source.Secret.Optional)
		return project(data, source.Secret.Items, source.Secret.Optional, err)
	case source.DownwardAPI != nil:
		return s.downward(source.DownwardAPI.Items)
	case source.Projected != nil:
		return s.projected(ctx, source.Projected.Sources)
	default:
		return nil, fmt.Errorf("the source %+v cannot be played", source)
	}
}

func (s *sandbox) projected(ctx context.Context, sources []corev1.VolumeProjection) (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, source := range sources {
		files, err := s.projection(ctx, source)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, files)
	}
	return all, nil
}

func (s *sandbox) projection(ctx context.Context, source corev1.VolumeProjection) (map[string][]byte, error) {
	switch {
	case source.ConfigMap != nil:
		data, err := s.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional)
		return project(data, source.ConfigMap.Items, source.ConfigMap.Optional, err)
	case source.Secret != nil:
		data, err := s.secret(ctx, source.Secret.Name, source.Secret.Optional)
		return project(data, source.Secret.Items, source.Secret.Optional, err)
	case source.DownwardAPI != nil:
		return s.downward(source.DownwardAPI.Items)
	case source.ServiceAccountToken != nil:
		token, err := s.token(ctx, source.ServiceAccountToken.Audience)
		return map[string][]byte{source.ServiceAccountToken.Path: []byte(token)}, err
	default:
		return nil, fmt.Errorf("the projection %+v cannot be played", source)
	}
}

func (s *sandbox) downward(items []corev1.DownwardAPIVolumeFile) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("the item %q cannot be played", item.Path)
		}
		value, err := s.field(item.FieldRef.FieldPath)
		if err != nil {
			return nil, err
		}
		files[item.Path] = []byte(value)
	}
	return files, nil
}

// project picks items out of data; none named means all.
func project(data map[string][]byte, items []corev1.KeyToPath, optional *bool, err error) (map[string][]byte, error) {
	if err != nil || len(items) == 0 {
		return data, err
	}
	files := map[string][]byte{}
	for _, item := range items {
		content, found, err := pick(data, item.Key, optional, nil)
		if err != nil {
			return nil, err
		}
		if found {
			files[item.Path] = []byte(content)
		}
	}
	return files, nil
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("create the folder of %q: %w", name, err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
	}
	return nil
}

// login gives the program its ServiceAccount, unless the pod wants none, as a variable that names a kubeconfig.
func (s *sandbox) login(ctx context.Context) ([]string, error) {
	if s.spec.AutomountServiceAccountToken != nil && !*s.spec.AutomountServiceAccountToken && s.mounts[tokenPath] == "" {
		return nil, nil
	}
	token, err := s.token(ctx, controlplane.Issuer)
	if err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(s.pod.Dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return nil, fmt.Errorf("write the token: %w", err)
	}
	kubeconfig := filepath.Join(s.pod.Dir, "kubeconfig")
	config := &rest.Config{
		Host:            s.controlPlane.Server(),
		BearerTokenFile: tokenFile,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.controlPlane.CABundle()},
	}
	if err := s.controlPlane.WriteKubeconfig(kubeconfig, config, s.pod.Namespace); err != nil {
		return nil, err
	}
	return []string{"KUBECONFIG=" + kubeconfig}, nil
}

// token asks the API server for a token of the pod's ServiceAccount.
func (s *sandbox) token(ctx context.Context, audience string) (string, error) {
	seconds := int64(tokenSeconds)
	if s.options.Detach {
		seconds = detachedTokenSeconds
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	// As the kubelet's: the API server tells from such a token which pod speaks. A pod that is not stored has none.
	if asksForUID(s.spec) {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: s.pod.Name, UID: types.UID(s.uid),
		}
	}
	answer, err := s.client.CoreV1().ServiceAccounts(s.pod.Namespace).
		CreateToken(ctx, s.serviceAccount(), request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request a token for ServiceAccount %s/%s: %w", s.pod.Namespace, s.serviceAccount(), err)
	}
	return answer.Status.Token, nil
}
