// Package kubelet plays the kubelet for one pod of a rendered Deployment: the program runs on this machine with
// the args, environment, files and ServiceAccount that the manifest gives it, and with an address of its own on
// the loopback interface. It knows manifests, and nothing of what the program does.
package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"

	"supportaccess.dev/operator/hack/controlplane"
	"supportaccess.dev/operator/hack/controlplane/process"
)

// Options say which pod to play.
type Options struct {
	// Manifest is the rendered manifest, of any number of objects.
	Manifest []byte
	// Deployment names the Deployment in it.
	Deployment types.NamespacedName
	// Binary runs in place of the image.
	Binary string
	// Dir gets a folder for the pod.
	Dir string
	// Env is added to the environment, for what only the harness needs.
	Env []string
	// Detach leaves the program running when this process ends; controlplane.Down stops it.
	Detach bool
	// IP is the pod's address on the loopback network. Empty means a free one.
	IP string
}

// Pod is one that runs, or ran.
type Pod struct {
	Name      string
	Namespace string
	IP        string
	// Dir has the pod's files: its volumes and its log.
	Dir string

	process   *process.Process
	container corev1.Container
}

// sandbox is what a pod's files, environment and args are made from.
type sandbox struct {
	pod          *Pod
	uid          string
	controlPlane *controlplane.ControlPlane
	client       kubernetes.Interface
	spec         corev1.PodSpec
	container    corev1.Container
	options      Options
	// mounts maps paths in the container to paths on this machine.
	mounts map[string]string
}

// Start plays one more pod of the Deployment. It does not wait until the pod is ready.
func Start(ctx context.Context, cp *controlplane.ControlPlane, options Options) (*Pod, error) {
	deployment, err := FindDeployment(options.Manifest, options.Deployment)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: deployment.Name + "-" + utilrand.String(5), Namespace: deployment.Namespace, UID: uuid.NewUUID(),
		},
		Spec: deployment.Spec.Template.Spec,
	}
	if asksForUID(pod.Spec) {
		if pod, err = store(ctx, cp, pod); err != nil {
			return nil, err
		}
	}
	return play(ctx, cp, options, pod)
}

// asksForUID reports whether the program is told its pod's UID. Then it may make the pod the owner of something, and what
// has an owner that does not exist is garbage.
func asksForUID(spec corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.Containers[0].Env, func(e corev1.EnvVar) bool {
		return e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.uid"
	})
}

// store makes the pod known to the API server. No scheduler looks at it: it runs here.
func store(ctx context.Context, cp *controlplane.ControlPlane, pod *corev1.Pod) (*corev1.Pod, error) {
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	stored := pod.DeepCopy()
	stored.UID, stored.Spec.SchedulerName = "", "played"
	made, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, stored, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	pod = pod.DeepCopy()
	pod.UID = made.UID
	return pod, nil
}

func play(ctx context.Context, cp *controlplane.ControlPlane, options Options, pod *corev1.Pod) (*Pod, error) {
	s, err := newSandbox(cp, pod, options)
	if err == nil {
		err = s.run(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("play pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return s.pod, nil
}

func newSandbox(cp *controlplane.ControlPlane, object *corev1.Pod, options Options) (*sandbox, error) {
	spec := object.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
		return nil, fmt.Errorf("it has %d containers and %d init containers; only one container can be played",
			len(spec.Containers), len(spec.InitContainers))
	}
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	container := spec.Containers[0]
	ip := options.IP
	if ip == "" {
		if ip, err = FreeIP(container.Ports...); err != nil {
			return nil, err
		}
	}
	pod := &Pod{
		Name: object.Name, Namespace: object.Namespace, IP: ip,
		Dir: filepath.Join(options.Dir, object.Name), container: container,
	}
	return &sandbox{
		pod: pod, uid: string(object.UID), controlPlane: cp, client: client,
		spec: spec, container: container, options: options, mounts: map[string]string{},
	}, nil
}

func (s *sandbox) run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(s.pod.Dir, "work"), 0o700); err != nil {
		return fmt.Errorf("create the pod's folder: %w", err)
	}
	if err := s.mountVolumes(ctx); err != nil {
		return err
	}
	env, err := s.environment(ctx)
	if err != nil {
		return err
	}
	args, err := s.args(env)
	if err != nil {
		return err
	}
	login, err := s.login(ctx)
	if err != nil {
		return err
	}
	command := process.Command{
		Name: s.pod.Name, Path: s.options.Binary, Args: args,
		Dir: filepath.Join(s.pod.Dir, "work"), LogPath: s.pod.LogPath(), Detach: s.options.Detach,
		Env: slices.Concat(s.imageEnvironment(), login, assignments(env), s.options.Env),
	}
	if s.pod.process, err = command.Start(); err != nil || !s.options.Detach {
		return err
	}
	record := controlplane.ProcessRecord{Name: s.pod.Name, PID: s.pod.PID(), Path: s.pod.Path()}
	if err := controlplane.RecordProcess(s.controlPlane.Dir(), record); err != nil {
		return errors.Join(err, s.pod.Kill())
	}
	return nil
}

// args are the container's, with variables expanded and what only holds in a container put right.
func (s *sandbox) args(env map[string]string) ([]string, error) {
	var args []string
	if len(s.container.Command) > 0 {
		if name := filepath.Base(s.container.Command[0]); name != filepath.Base(s.options.Binary) {
			return nil, fmt.Errorf("its command is %q; only %s can be played", name, filepath.Base(s.options.Binary))
		}
		args = append(args, s.container.Command[1:]...)
	}
	args = append(args, s.container.Args...)
	for i, arg := range args {
		args[i] = s.listenOnPodIP(s.rewriteMounts(expand(arg, env)))
	}
	return args, nil
}

// imageEnvironment is what the image would set. A root filesystem that is read-only has no place for temporary files.
func (s *sandbox) imageEnvironment() []string {
	temporary := filepath.Join(s.pod.Dir, "work")
	security := s.container.SecurityContext
	if security != nil && security.ReadOnlyRootFilesystem != nil && *security.ReadOnlyRootFilesystem {
		temporary = filepath.Join(s.pod.Dir, "read-only")
	}
	temporary = cmp.Or(s.mounts["/tmp"], temporary)
	return []string{"PATH=/usr/bin:/bin", "HOME=" + filepath.Join(s.pod.Dir, "work"), "TMPDIR=" + temporary}
}

func assignments(env map[string]string) []string {
	var result []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		result = append(result, name+"="+env[name])
	}
	return result
}

// FreeIP chooses an address of the loopback network on which a container's ports are free.
func FreeIP(ports ...corev1.ContainerPort) (string, error) {
	for range 100 {
		ip := fmt.Sprintf("127.0.%d.%d", 1+rand.IntN(254), 1+rand.IntN(254))
		if allFree(ip, ports) {
			return ip, nil
		}
	}
	return "", errors.New("find a free address: tried a hundred")
}

func allFree(ip string, ports []corev1.ContainerPort) bool {
	for _, port := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(port.ContainerPort))))
		if err != nil {
			return false
		}
		if listener.Close() != nil {
			return false
		}
	}
	return true
}
