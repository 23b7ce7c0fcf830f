package controlplane

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/client-go/kubernetes"
)

// AnotherAPIServer starts one more API server on the same etcd, as clusters have several, and returns the control plane as
// whoever asks that one sees it. To stop it stops that API server alone.
func (cp *ControlPlane) AnotherAPIServer(ctx context.Context) (*ControlPlane, error) {
	free, err := freePorts()
	if err != nil {
		return nil, err
	}
	other := *cp
	other.processes, other.temporary, other.options.Detach = nil, false, false
	other.ports.apiServer = free.apiServer
	const name = "kube-apiserver-2"
	other.options.APIServerArgs = append(slices.Clone(cp.options.APIServerArgs), "--audit-log-path="+cp.file(name+"-audit.log"))
	if err := other.run(name, cp.binaries.APIServer, other.apiServerArgs()); err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(other.AdminConfig())
	if err == nil {
		err = other.until(ctx, "another kube-apiserver is ready", apiServerReady(client))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start another API server: %w", err), other.Stop())
	}
	return &other, nil
}
