package cli

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"supportaccess.dev/operator/test/gen"
)

// handedOver is a kubeconfig as the operator makes it, but for what is changed.
func handedOver(t *testing.T, change func(*clientcmdapi.Config, *clientcmdapi.Cluster, *clientcmdapi.AuthInfo)) []byte {
	t.Helper()
	config := clientcmdapi.NewConfig()
	cluster := &clientcmdapi.Cluster{Server: "https://cluster.example:6443", CertificateAuthorityData: []byte("CA")}
	user := &clientcmdapi.AuthInfo{Token: "the-token"}
	config.Clusters["mail-archive/case-4711"], config.AuthInfos[gen.Engineer] = cluster, user
	config.Contexts["mail-archive/case-4711"] = &clientcmdapi.Context{Cluster: "mail-archive/case-4711", AuthInfo: gen.Engineer, Namespace: "mail-archive"}
	config.CurrentContext = "mail-archive/case-4711"
	change(config, cluster, user)
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func asMade(*clientcmdapi.Config, *clientcmdapi.Cluster, *clientcmdapi.AuthInfo) {}

func TestAKubeconfigThatWouldDoMoreThanLogInIsRefused(t *testing.T) {
	type change = func(*clientcmdapi.Config, *clientcmdapi.Cluster, *clientcmdapi.AuthInfo)
	for want, change := range map[string]change{
		"it would run a program on this machine (exec)": func(_ *clientcmdapi.Config, _ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.Exec = &clientcmdapi.ExecConfig{Command: "sh", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode}
		},
		"it would log in another way (auth-provider)": func(_ *clientcmdapi.Config, _ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.AuthProvider = &clientcmdapi.AuthProviderConfig{Name: "oidc"}
		},
		"it names a file for the credential": func(_ *clientcmdapi.Config, _ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.TokenFile = "/etc/passwd"
		},
		"it would act as somebody else (as)": func(_ *clientcmdapi.Config, _ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) {
			u.Impersonate = "root"
		},
		"it has no token": func(_ *clientcmdapi.Config, _ *clientcmdapi.Cluster, u *clientcmdapi.AuthInfo) { u.Token = "" },
		"is no https:// address": func(_ *clientcmdapi.Config, c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.Server = "http://cluster.example"
		},
		"it does not verify the server": func(_ *clientcmdapi.Config, c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.InsecureSkipTLSVerify = true
		},
		"it names a file for the CA": func(_ *clientcmdapi.Config, c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.CertificateAuthority = "/etc/passwd"
		},
		"it names a proxy": func(_ *clientcmdapi.Config, c *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			c.ProxyURL = "http://evil.example"
		},
		"it has no current context": func(k *clientcmdapi.Config, _ *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			k.CurrentContext = "other"
		},
		"names no cluster, or no user": func(k *clientcmdapi.Config, _ *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			delete(k.AuthInfos, gen.Engineer)
		},
		"names no grant": func(k *clientcmdapi.Config, _ *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			k.Contexts["prod"], k.CurrentContext = k.Contexts[k.CurrentContext], "prod"
		},
		"is none": func(k *clientcmdapi.Config, _ *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
			k.Contexts[k.CurrentContext].Namespace = "../x"
		},
	} {
		if got, err := readHanded(handedOver(t, change)); err == nil || !strings.Contains(err.Error(), want) || got.token != "" {
			t.Errorf("got %+v, %v, want %q", got, err, want)
		}
	}
	if _, err := readHanded([]byte("no kubeconfig")); err == nil {
		t.Error("any text passes for a kubeconfig")
	}
	h, err := readHanded(handedOver(t, asMade))
	if err != nil || h.contextName() != "support-mail-archive-case-4711" || h.token != "the-token" || !h.expires.IsZero() {
		t.Errorf("what the operator makes is read as %+v, %v", h, err)
	}
}

func TestATokenThatSaysItsEndIsBelieved(t *testing.T) {
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	end := gen.Epoch.Unix()
	for token, want := range map[string]int64{
		jwt(fmt.Sprintf(`{"exp":%d}`, end)): end, jwt(`{}`): 0, jwt(`[]`): 0, jwt(`{"exp":-1}`): 0, "opaque": 0, "a.b.c": 0, "sag_x.y": 0,
	} {
		got := expiryOf(token)
		if want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("%s: got %s, want %d", token, got, want)
		}
	}
}

func TestLoggingInAddsAContextAndLeavesTheRestAlone(t *testing.T) {
	own := clientcmdapi.NewConfig()
	own.Clusters["mine"] = &clientcmdapi.Cluster{Server: "https://mine.example"}
	own.Contexts["mine"] = &clientcmdapi.Context{Cluster: "mine", AuthInfo: "me"}
	own.CurrentContext = "mine"
	before := own.DeepCopy()
	h, err := readHanded(handedOver(t, asMade))
	if err != nil {
		t.Fatal(err)
	}
	name := h.contextName()
	if err := h.mergeInto(own, name); err != nil {
		t.Fatal(err)
	}
	if c := own.Contexts[name]; c.Cluster != name || c.AuthInfo != name || c.Namespace != "mail-archive" {
		t.Errorf("the context is %+v", c)
	}
	if own.Clusters[name].Server != "https://cluster.example:6443" || string(own.Clusters[name].CertificateAuthorityData) != "CA" || own.AuthInfos[name].Token != "the-token" {
		t.Errorf("the cluster is %+v, the user %+v", own.Clusters[name], own.AuthInfos[name])
	}
	if own.CurrentContext != "mine" || !equality.Semantic.DeepEqual(own.Contexts["mine"], before.Contexts["mine"]) {
		t.Error("another context has changed")
	}

	// What login made is known again after it was written and read.
	content, err := clientcmd.Write(*own)
	if err != nil {
		t.Fatal(err)
	}
	if own, err = clientcmd.Load(content); err != nil {
		t.Fatal(err)
	}
	h.token = "the-next-token"
	if err := h.mergeInto(own, name); err != nil || own.AuthInfos[name].Token != "the-next-token" {
		t.Errorf("a newer credential is not taken: %v", err)
	}
	h.server = "https://other.example"
	if err := h.mergeInto(own, name); err == nil || !strings.Contains(err.Error(), "is for the grant of another cluster, https://cluster.example:6443") {
		t.Errorf("the grant of another cluster: %v", err)
	}
}

func TestAnEntryThatLoginDidNotMakeIsNotOverwritten(t *testing.T) {
	h, err := readHanded(handedOver(t, asMade))
	if err != nil {
		t.Fatal(err)
	}
	name := h.contextName()
	for want, add := range map[string]func(*clientcmdapi.Config){
		"has a context " + name: func(c *clientcmdapi.Config) { c.Contexts[name] = clientcmdapi.NewContext() },
		"has a user " + name:    func(c *clientcmdapi.Config) { c.AuthInfos[name] = clientcmdapi.NewAuthInfo() },
		"has a cluster " + name: func(c *clientcmdapi.Config) { c.Clusters[name] = clientcmdapi.NewCluster() },
	} {
		own := clientcmdapi.NewConfig()
		add(own)
		before := own.DeepCopy()
		if err := h.mergeInto(own, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if !equality.Semantic.DeepEqual(own, before) {
			t.Errorf("%s: it was changed", want)
		}
	}
}

func TestAnEncryptedFileOpensWithItsKeyAlone(t *testing.T) {
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sshRecipient, err := agessh.ParseRecipient(string(ssh.MarshalAuthorizedKey(sshPublic)))
	if err != nil {
		t.Fatal(err)
	}
	plainKey, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	lockedKey, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for sentence, c := range map[string]struct {
		recipient age.Recipient
		identity  string
		wrong     string
	}{
		"an age identity":         {mine.Recipient(), "# mine\n" + mine.String() + "\n", ""},
		"one of two":              {mine.Recipient(), other.String() + "\n" + mine.String() + "\n", ""},
		"an SSH key":              {sshRecipient, string(pem.EncodeToMemory(plainKey)), ""},
		"another's":               {mine.Recipient(), other.String(), "decrypt: "},
		"another SSH key":         {mine.Recipient(), string(pem.EncodeToMemory(plainKey)), "decrypt: "},
		"a key with a passphrase": {sshRecipient, string(pem.EncodeToMemory(lockedKey)), "--identity: the SSH key has a passphrase"},
		"no key at all":           {mine.Recipient(), "hello", "--identity: the file holds neither"},
	} {
		for _, armored := range []string{"armored", "binary"} {
			content := encrypted(t, c.recipient, armored)
			if !isEncrypted(content) {
				t.Errorf("%s: an encrypted file is taken for plain", sentence)
			}
			got, err := decrypt(content, []byte(c.identity))
			if c.wrong == "" && (err != nil || string(got) != "plain") {
				t.Errorf("%s, %s: got %q, %v", sentence, armored, got, err)
			}
			if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), other.String())) {
				t.Errorf("%s, %s: got %v, want %q", sentence, armored, err, c.wrong)
			}
		}
	}
	if isEncrypted(handedOver(t, asMade)) {
		t.Error("a plain kubeconfig is taken for an encrypted one")
	}
}

func encrypted(t *testing.T, recipient age.Recipient, how string) []byte {
	t.Helper()
	var out bytes.Buffer
	writer, err := age.Encrypt(&out, recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write([]byte("plain")); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if how == "binary" {
		return out.Bytes()
	}
	var text bytes.Buffer
	armored := armor.NewWriter(&text)
	if _, err := armored.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := armored.Close(); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}
