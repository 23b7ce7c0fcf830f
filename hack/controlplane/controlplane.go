package controlplane

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"supportaccess.dev/operator/hack/controlplane/process"
)

const (
	// startTimeout bounds the start of one control plane, on a busy machine too.
	startTimeout = 2 * time.Minute
	pollInterval = 25 * time.Millisecond
	portAttempts = 5
	stopGrace    = 5 * time.Second
)

// errPortTaken says that another program took a port between the choice and its use.
var errPortTaken = errors.New("a port is taken")

// Options say how a control plane is to be.
type Options struct {
	// Dir keeps data, logs and keys. Empty: a temporary folder, removed by Stop.
	Dir string
	// Kwok adds a scheduler and a node whose pods run, with logs, exec and attach.
	Kwok bool
	// LeaveJobs are namespaces in which kwok lets the pods of Jobs run on: something else plays them to their end.
	LeaveJobs []string
	// Fsync makes etcd wait for the disk, as in production. For measurements.
	Fsync bool
	// Detach leaves the control plane running when this process ends. Down stops it.
	Detach bool
	// APIServerArgs are flags that win over the ones that Start gives kube-apiserver.
	APIServerArgs []string
	// Log takes what is worth telling people. Empty: nothing is told.
	Log Logf
}

// ControlPlane is a running Kubernetes control plane.
type ControlPlane struct {
	options   Options
	binaries  Binaries
	dir       string
	temporary bool
	ca        *authority
	tokenKey  *rsa.PrivateKey
	ports     ports
	processes []*process.Process
}

// ports are the loopback ports that one control plane listens on.
type ports struct {
	etcd, etcdPeer, apiServer, kubelet int
}

// Start builds what is missing, starts a control plane and returns once it is ready for use: the API server
// answers, the aggregated ClusterRoles are filled, the namespace "default" has its ServiceAccount, and with
// kwok the node is ready. The context bounds the start, not the life.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	if options.Log == nil {
		options.Log = func(string, ...any) {}
	}
	binaries, err := Build(ctx, options.Log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		cp, err := startOnce(ctx, options, binaries)
		if err == nil {
			return cp, nil
		}
		if attempt == portAttempts || !errors.Is(err, errPortTaken) {
			return nil, fmt.Errorf("start the control plane: %w", err)
		}
		options.Log("a port was taken, starting again with others")
	}
}

func startOnce(ctx context.Context, options Options, binaries Binaries) (*ControlPlane, error) {
	cp := &ControlPlane{options: options, binaries: binaries}
	if err := cp.start(ctx); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context) error {
	if err := cp.prepare(); err != nil {
		return err
	}
	if err := cp.run("etcd", cp.binaries.Etcd, cp.etcdArgs()); err != nil {
		return err
	}
	if err := cp.until(ctx, "etcd listens", cp.etcdListens); err != nil {
		return err
	}
	if err := cp.run("kube-apiserver", cp.binaries.APIServer, cp.apiServerArgs()); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cp.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := cp.until(ctx, "kube-apiserver is ready", apiServerReady(client)); err != nil {
		return err
	}
	if err := cp.run("kube-controller-manager", cp.binaries.ControllerManager, cp.controllerManagerArgs()); err != nil {
		return err
	}
	if cp.options.Kwok {
		if err := cp.startNode(ctx, client); err != nil {
			return err
		}
	}
	return cp.until(ctx, "kube-controller-manager has filled the cluster", clusterFilled(client))
}

// prepare makes the folder, the keys and the files that the programs read.
func (cp *ControlPlane) prepare() error {
	if err := cp.makeDir(); err != nil {
		return err
	}
	var err error
	if cp.ports, err = freePorts(); err != nil {
		return err
	}
	if cp.ca, err = newAuthority(); err != nil {
		return err
	}
	key, pem, err := newServiceAccountKey()
	if err != nil {
		return err
	}
	cp.tokenKey = key
	files := map[string][]byte{
		cp.file("ca.crt"):                 cp.ca.bundle,
		cp.ServiceAccountSigningKeyPath(): pem,
		cp.file("audit-policy.yaml"):      []byte(auditPolicy),
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("prepare the control plane: %w", err)
		}
	}
	return cp.writeCredentials()
}

func (cp *ControlPlane) makeDir() error {
	if cp.options.Dir == "" {
		dir, err := os.MkdirTemp("", "controlplane-")
		if err != nil {
			return fmt.Errorf("create a temporary folder: %w", err)
		}
		cp.dir, cp.temporary = dir, true
		return nil
	}
	dir, err := filepath.Abs(cp.options.Dir)
	if err != nil {
		return fmt.Errorf("find the folder %s: %w", cp.options.Dir, err)
	}
	cp.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the folder %s: %w", dir, err)
	}
	// The keys are new in every start, so what an earlier one left could not be read.
	for _, stale := range []string{"etcd", "audit.log"} {
		if err := os.RemoveAll(cp.file(stale)); err != nil {
			return fmt.Errorf("remove what an earlier control plane left: %w", err)
		}
	}
	return nil
}

// writeCredentials writes the certificates and kubeconfigs that the programs know one another by.
func (cp *ControlPlane) writeCredentials() error {
	for _, name := range []string{"etcd", "kube-apiserver", "kubelet"} {
		pair, err := cp.ca.serve(name)
		if err != nil {
			return err
		}
		if err := pair.write(cp.file(name)); err != nil {
			return err
		}
	}
	users := map[string][]string{
		"system:kube-controller-manager": nil,
		"system:kube-scheduler":          nil,
		"system:kwok":                    {mastersGroup},
	}
	for user, groups := range users {
		path := cp.file(user[len("system:"):] + ".kubeconfig")
		if err := cp.WriteKubeconfig(path, cp.UserConfig(user, groups...), ""); err != nil {
			return err
		}
	}
	return nil
}

// run starts one program of the control plane.
func (cp *ControlPlane) run(name, path string, args []string) error {
	// Nothing of the caller's environment: kwok hands its own to whoever runs exec.
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cp.dir, "TMPDIR=" + cp.dir}
	if !cp.options.Fsync {
		// Where nobody measures, memory is cheaper than the time in which it is collected.
		env = append(env, "GOGC=400", "GOMEMLIMIT=1GiB")
	}
	p, err := process.Command{
		Name: name, Path: path, Args: args, Dir: cp.dir, LogPath: cp.file(name + ".log"), Detach: cp.options.Detach, Env: env,
	}.Start()
	if err != nil {
		return err
	}
	cp.processes = append(cp.processes, p)
	if !cp.options.Detach {
		return nil
	}
	return RecordProcess(cp.dir, ProcessRecord{Name: name, PID: p.PID(), Path: path})
}

// until polls a condition. It gives up when the context ends or a program does.
func (cp *ControlPlane) until(ctx context.Context, what string, condition func(context.Context) error) error {
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		for _, p := range cp.processes {
			if p.Exited() {
				return fmt.Errorf("wait until %s: it ended: %w", what, failure(p))
			}
		}
		if pause(ctx, pollInterval) != nil {
			newest := cp.processes[len(cp.processes)-1]
			return fmt.Errorf("wait until %s: %w; last seen: %w\n%w", what, ctx.Err(), err, failure(newest))
		}
	}
}

// failure describes why a program ended or did not become ready, with the end of its log.
func failure(p *process.Process) error {
	tail := p.Tail()
	err := fmt.Errorf("%s: the end of %s:\n%s", p.Name, p.LogPath, tail)
	if strings.Contains(tail, "address already in use") {
		return errors.Join(errPortTaken, err)
	}
	return err
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// PauseAPIServer stops the API server in its tracks until the returned function lets it go on: nobody gets an answer, and
// nobody is told so.
func (cp *ControlPlane) PauseAPIServer() (resume func() error, err error) {
	for _, p := range cp.processes {
		if p.Path() == cp.binaries.APIServer {
			return p.Resume, p.Pause()
		}
	}
	return nil, errors.New("pause the API server: it does not run")
}

// Stop ends every program of the control plane, the one started last first, and removes a temporary folder.
func (cp *ControlPlane) Stop() error {
	var errs []error
	for _, p := range slices.Backward(cp.processes) {
		errs = append(errs, p.Stop(stopGrace))
	}
	cp.processes = nil
	if cp.temporary {
		errs = append(errs, os.RemoveAll(cp.dir))
	}
	if cp.options.Detach {
		errs = append(errs, forgetProcesses(cp.dir))
	}
	return errors.Join(errs...)
}

func (cp *ControlPlane) file(name string) string {
	return filepath.Join(cp.dir, name)
}

// freePorts chooses ports below the range that the kernel gives to outgoing connections: those change hands
// too quickly for a choice to hold until its use.
func freePorts() (ports, error) {
	var chosen []int
	for range 1000 {
		if len(chosen) == 4 {
			return ports{etcd: chosen[0], etcdPeer: chosen[1], apiServer: chosen[2], kubelet: chosen[3]}, nil
		}
		port := 12000 + rand.IntN(20000)
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil || slices.Contains(chosen, port) {
			continue
		}
		if err := listener.Close(); err != nil {
			return ports{}, fmt.Errorf("give back port %d: %w", port, err)
		}
		chosen = append(chosen, port)
	}
	return ports{}, errors.New("find free ports: tried a thousand times")
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
