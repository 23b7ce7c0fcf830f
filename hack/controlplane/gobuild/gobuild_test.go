package gobuild

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestTheVersionOfAToolIsWhatItsModuleRequires(t *testing.T) {
	tool := Tool{Module: "k8s.io/kubernetes", Dir: "hack/controlplane/kubernetes"}
	version, err := tool.Version()
	if err != nil || !strings.HasPrefix(version, "v1.") {
		t.Errorf("%q, %v, want one of Kubernetes' versions", version, err)
	}
	tool.Module = "k8s.io/kube"
	if version, err := tool.Version(); err == nil {
		t.Errorf("a module that is only the beginning of another's name has version %q", version)
	}
}

func TestOneLocksAtATimeAndWhoWaitsGivesUpWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	gaveUp, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(gaveUp, path, t.Logf); !errors.Is(err, context.Canceled) {
		t.Errorf("the second to lock: %v, want that its context ended", err)
	}
	unlock()
	again, err := lock(t.Context(), path, t.Logf)
	if err != nil {
		t.Fatalf("after the first gave the lock back: %v", err)
	}
	again()
}

func TestWhatIsNoProgramHasNoVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("text"), 0o700); err != nil {
		t.Fatal(err)
	}
	if version := builtFrom(path); version != "" {
		t.Errorf("text was built from %q", version)
	}
	if version := builtFrom(path + ".missing"); version != "" {
		t.Errorf("nothing was built from %q", version)
	}
	info, ok := debug.ReadBuildInfo()
	self, err := os.Executable()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if version := builtFrom(self); version != info.Main.Version {
		t.Errorf("this test was built from %q, want %q", version, info.Main.Version)
	}
}

func TestAProgramThatIsUpToDateIsNotLinkedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "testreport")
	build := func(pkg string) []byte {
		t.Helper()
		if err := Program(t.Context(), pkg, path, t.Logf); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	// What is up to date is told by its beginning.
	const first, second = "./hack/testreport", "./hack/postgres/cmd"
	marked := append(build(first), "built once"...)
	if err := os.WriteFile(path, marked, 0o700); err != nil {
		t.Fatal(err)
	}
	if again := build(first); !bytes.Equal(again, marked) {
		t.Errorf("it was built again: %d bytes, want %d", len(again), len(marked))
	}
	if other := build(second); bytes.Contains(other, []byte("built once")) {
		t.Errorf("what is not up to date was left as it is: %d bytes", len(other))
	}
}
