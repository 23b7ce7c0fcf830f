package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// advice says what a person can do who is not helped.
const advice = "install PostgreSQL's server, which is Debian's package postgresql, or set " + SkipVariable + "=1 to leave out the tests that need it"

// Install returns the folder with the server's programs. Where there are none it installs Debian's package, if it may.
func Install(ctx context.Context, say func(format string, args ...any)) (string, error) {
	if dir := find(); dir != "" {
		return dir, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return "", errors.New("there is no PostgreSQL: " + advice)
	}
	// The tests of several packages run at once.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "support-access-postgres.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock the installation of PostgreSQL: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock the installation of PostgreSQL: %w", err)
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	say("installing Debian's package postgresql")
	if err := install(ctx, apt); err != nil {
		return "", fmt.Errorf("there is no PostgreSQL, and its installation failed: %w; %s", err, advice)
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	return "", errors.New("PostgreSQL was installed, and its programs are not in /usr/lib/postgresql/*/bin: " + advice)
}

// find returns the folder with the newest server's programs, nothing if there is none.
func find() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, filepath.Dir(path))
	}
	for _, dir := range found {
		if isProgram(dir, "initdb") && isProgram(dir, "postgres") {
			return dir
		}
	}
	return ""
}

func version(bin string) int {
	number, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return number
}

func isProgram(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// noCluster is where Debian's package reads whether it is to start a server of its own.
const noCluster = "/etc/postgresql-common/createcluster.conf"

func install(ctx context.Context, apt string) error {
	if _, err := os.Stat(noCluster); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(noCluster), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(noCluster, []byte("create_main_cluster = false\n"), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"update"},
		{"install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold", "postgresql"},
	} {
		command := exec.CommandContext(ctx, apt, args...)
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", args[0], err, last(string(out)))
		}
	}
	return nil
}

// last returns the last lines of what a program said.
func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
