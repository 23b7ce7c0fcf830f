package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// remembered is for how long an address that was found is not looked for again.
const remembered = time.Minute

// errNoAddress says what a person must set.
var errNoAddress = errors.New("set cluster.server: the operator does not know the address at which engineers reach the API server, " +
	"and kube-public/cluster-info does not say it")

// Addresses knows how engineers reach the API server: from what it was told, else from kube-public/cluster-info. It
// never answers with the address that only pods can reach.
type Addresses struct {
	// Told is the address that the installation gave. Without a server it is looked for.
	Told Cluster
	// Live reads kube-public/cluster-info.
	Live client.Reader
	// Clock says when an address is to be looked for again.
	Clock clock.PassiveClock

	mu    sync.Mutex
	found Cluster
	at    time.Time
}

// Cluster returns the address and the CA, or an error that says what a person must set.
func (a *Addresses) Cluster(ctx context.Context) (Cluster, error) {
	if a.Told.Server != "" {
		return a.Told, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found.Server != "" && a.Clock.Since(a.at) < remembered {
		return a.found, nil
	}
	info := &corev1.ConfigMap{}
	if err := a.Live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespacePublic, Name: "cluster-info"}, info); err != nil {
		return Cluster{}, errNoAddress
	}
	found, err := clusterOf(info.Data["kubeconfig"])
	if err != nil {
		return Cluster{}, err
	}
	if len(a.Told.CABundle) > 0 {
		found.CABundle = a.Told.CABundle
	}
	a.found, a.at = found, a.Clock.Now()
	return found, nil
}

func clusterOf(content string) (Cluster, error) {
	config, err := clientcmd.Load([]byte(content))
	if err != nil {
		return Cluster{}, fmt.Errorf("%w: it cannot be read", errNoAddress)
	}
	for _, c := range config.Clusters {
		if strings.HasPrefix(c.Server, "https://") {
			return Cluster{Server: c.Server, CABundle: c.CertificateAuthorityData}, nil
		}
	}
	return Cluster{}, errNoAddress
}
