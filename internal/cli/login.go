package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// markName is the name of the extension that says that an entry of a kubeconfig was made by login.
const markName = "supportaccess.dev/login"

// handed is what an engineer was handed: all that is taken over of the file.
type handed struct {
	namespace, grant string
	// contextNamespace is where kubectl looks when no namespace is named.
	contextNamespace string
	server           string
	tlsServerName    string
	ca               []byte
	token            string
	// expires is when the credential dies, zero where the file does not say.
	expires time.Time
}

// contextName is the name of the context, the cluster and the user.
func (h handed) contextName() string { return "support-" + h.namespace + "-" + h.grant }

// readHanded reads a kubeconfig that somebody else made. Whatever in it would run a program, read a file or reach somewhere
// else on the engineer's machine is refused: a customer's file must not do more than log in.
func readHanded(content []byte) (handed, error) {
	config, err := clientcmd.Load(content)
	if err != nil {
		return handed{}, fmt.Errorf("it is no kubeconfig: %w", err)
	}
	context := config.Contexts[config.CurrentContext]
	if context == nil {
		return handed{}, errors.New("it has no current context")
	}
	cluster, user := config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo]
	if cluster == nil || user == nil {
		return handed{}, errors.New("its context names no cluster, or no user")
	}
	if err := errors.Join(checkCluster(cluster), checkUser(user)); err != nil {
		return handed{}, err
	}
	namespace, grant, ok := strings.Cut(config.CurrentContext, "/")
	if !ok || !label.MatchString(namespace) || !label.MatchString(grant) {
		return handed{}, fmt.Errorf("its context %q names no grant: it is no kubeconfig of support access", clean(config.CurrentContext))
	}
	if context.Namespace != "" && !label.MatchString(context.Namespace) {
		return handed{}, fmt.Errorf("its namespace %q is none", clean(context.Namespace))
	}
	return handed{
		namespace: namespace, grant: grant, contextNamespace: context.Namespace, server: cluster.Server, tlsServerName: cluster.TLSServerName,
		ca: cluster.CertificateAuthorityData, token: user.Token, expires: expiryOf(user.Token),
	}, nil
}

func checkCluster(cluster *clientcmdapi.Cluster) error {
	server, err := url.Parse(cluster.Server)
	switch {
	case err != nil || server.Scheme != "https" || server.Host == "":
		return fmt.Errorf("its server %q is no https:// address", clean(cluster.Server))
	case cluster.InsecureSkipTLSVerify:
		return errors.New("it does not verify the server (insecure-skip-tls-verify)")
	case cluster.CertificateAuthority != "":
		return errors.New("it names a file for the CA (certificate-authority)")
	case cluster.ProxyURL != "":
		return errors.New("it names a proxy (proxy-url)")
	default:
		return nil
	}
}

func checkUser(user *clientcmdapi.AuthInfo) error {
	switch {
	case user.Exec != nil:
		return errors.New("it would run a program on this machine (exec)")
	case user.AuthProvider != nil:
		return errors.New("it would log in another way (auth-provider)")
	case user.TokenFile != "" || user.ClientKey != "" || user.ClientCertificate != "":
		return errors.New("it names a file for the credential")
	case user.Impersonate != "" || len(user.ImpersonateGroups) > 0 || user.ImpersonateUID != "" || len(user.ImpersonateUserExtra) > 0:
		return errors.New("it would act as somebody else (as)")
	case user.Token == "":
		return errors.New("it has no token")
	default:
		return nil
	}
}

// expiryOf says when a token dies, if it is one that says so. It is told to the engineer and decides nothing: nobody checks
// the signature here.
func expiryOf(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Expiry int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Expiry <= 0 {
		return time.Time{}
	}
	return time.Unix(claims.Expiry, 0).UTC()
}

// mergeInto adds the context, the cluster and the user of what was handed over to a kubeconfig. An entry of that name which
// login did not make, or made for another server, is left alone, and nothing is changed.
func (h handed) mergeInto(config *clientcmdapi.Config, name string) error {
	mark, err := h.mark()
	if err != nil {
		return err
	}
	if err := h.mayReplace(config, name); err != nil {
		return err
	}
	cluster, user, context := clientcmdapi.NewCluster(), clientcmdapi.NewAuthInfo(), clientcmdapi.NewContext()
	cluster.Server, cluster.TLSServerName, cluster.CertificateAuthorityData, cluster.Extensions = h.server, h.tlsServerName, h.ca, mark
	user.Token, user.Extensions = h.token, mark
	context.Cluster, context.AuthInfo, context.Namespace, context.Extensions = name, name, h.contextNamespace, mark
	config.Clusters[name], config.AuthInfos[name], config.Contexts[name] = cluster, user, context
	return nil
}

// mark is the extension that says that login made an entry, and for which grant.
func (h handed) mark() (map[string]runtime.Object, error) {
	raw, err := json.Marshal(map[string]string{"namespace": h.namespace, "grant": h.grant})
	if err != nil {
		return nil, fmt.Errorf("mark the context: %w", err)
	}
	return map[string]runtime.Object{markName: &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}}, nil
}

func (h handed) mayReplace(config *clientcmdapi.Config, name string) error {
	var foreign []string
	if c := config.Contexts[name]; c != nil && c.Extensions[markName] == nil {
		foreign = append(foreign, "context")
	}
	if u := config.AuthInfos[name]; u != nil && u.Extensions[markName] == nil {
		foreign = append(foreign, "user")
	}
	cluster := config.Clusters[name]
	if cluster != nil && cluster.Extensions[markName] == nil {
		foreign = append(foreign, "cluster")
	}
	if len(foreign) > 0 {
		return fmt.Errorf("--name: your kubeconfig has a %s %s that login did not make: give another name", strings.Join(foreign, ", a "), name)
	}
	if cluster != nil && cluster.Server != h.server {
		return fmt.Errorf("--name: %s is for the grant of another cluster, %s: give another name", name, clean(cluster.Server))
	}
	return nil
}

// isEncrypted reports whether a file is one of age.
func isEncrypted(content []byte) bool {
	content = bytes.TrimSpace(content)
	return bytes.HasPrefix(content, []byte(armor.Header)) || bytes.HasPrefix(content, []byte("age-encryption.org/"))
}

// decrypt opens an age file with the private keys of an identity file.
func decrypt(content, identity []byte) ([]byte, error) {
	identities, err := identitiesIn(identity)
	if err != nil {
		return nil, err
	}
	var in io.Reader = bytes.NewReader(content)
	if trimmed := bytes.TrimSpace(content); bytes.HasPrefix(trimmed, []byte(armor.Header)) {
		in = armor.NewReader(bytes.NewReader(trimmed))
	}
	plain, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(plain, maxHanded))
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return out, nil
}

// identitiesIn reads age identities, or one SSH key.
func identitiesIn(content []byte) ([]age.Identity, error) {
	if !bytes.Contains(content, []byte("PRIVATE KEY-----")) {
		identities, err := age.ParseIdentities(bytes.NewReader(content))
		if err != nil {
			return nil, errors.New("--identity: the file holds neither age identities nor an SSH private key")
		}
		return identities, nil
	}
	identity, err := agessh.ParseIdentity(content)
	missing := (*ssh.PassphraseMissingError)(nil)
	if errors.As(err, &missing) {
		return nil, errors.New("--identity: the SSH key has a passphrase, which is not asked for here: decrypt with age --decrypt --identity, and log in with what it writes")
	}
	if err != nil {
		return nil, fmt.Errorf("--identity: read the SSH private key: %w", err)
	}
	return []age.Identity{identity}, nil
}
