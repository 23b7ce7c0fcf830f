package change

import (
	"strings"
	"testing"
)

func TestWhatLooksSecretInACommandIsMasked(t *testing.T) {
	m, err := NewMasker([]byte("a key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "hunter2"
	for _, words := range [][]string{
		{"mysql", "--password=" + secret}, {"mysql", "--password", secret}, {"app", "--db-password", secret}, {"app", "-token", secret}, {"app", "--api-key=" + secret},
		{"env", "PGPASSWORD=" + secret, "psql"}, {"sh", "-c", "PGPASSWORD=" + secret + " psql -c 'select 1'"}, {"sh", "-c", "app --token " + secret + " && ls"},
		{"sh", "-c", "export API_TOKEN='" + secret + "'; app"}, {"curl", "https://ana:" + secret + "@db.example/x"}, {"psql", "postgres://ana:" + secret + "@db/mail"},
		{"curl", "-H", "Authorization: Bearer " + secret}, {"curl", "-H", "X-Auth-Token: " + secret}, {"sh", "-c", `echo '{"password": "` + secret + `"}'`},
		{"app", "--access_key=" + secret}, {"app", "--credentials", secret},
	} {
		masked := strings.Join(m.Command(words), " ")
		if strings.Contains(masked, secret) || !strings.Contains(masked, m.Text(secret)) {
			t.Errorf("%q is kept as %q", words, masked)
		}
	}
}

func TestWhatIsNoSecretInACommandIsKept(t *testing.T) {
	m, err := NewMasker([]byte("a key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{
		{"ls", "-la", "/etc/passwd"}, {"cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"}, {"sh", "-c", "ps aux | grep auth"}, {"mkdir", "-p", "/tmp/a"},
		{"kubectl", "get", "secret", "mail"}, {"curl", "https://db.example:8443/x"}, {"app", "--token", "--verbose"}, nil,
	} {
		if masked := m.Command(words); strings.Join(masked, "\x00") != strings.Join(words, "\x00") {
			t.Errorf("%q is kept as %q", words, masked)
		}
	}
}

func TestMaskingACommandAgainChangesNothing(t *testing.T) {
	m, err := NewMasker([]byte("a key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	once := m.Command([]string{"sh", "-c", "PGPASSWORD=hunter2 psql postgres://ana:hunter2@db", "--token=x"})
	if again := m.Command(once); strings.Join(again, " ") != strings.Join(once, " ") {
		t.Errorf("%q became %q", once, again)
	}
}
