// Package gobuild compiles the pinned tools of this repository, once for all who ask at the same time. It knows
// the modules under hack and nothing of what the tools do.
package gobuild

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// modulePath is this repository's module; its go.mod marks the root.
const modulePath = "supportaccess.dev/operator"

// Logf takes a line for people to read; testing.T's Logf is one.
type Logf func(format string, args ...any)

// Tool is a program of a module that another, nested here, pins.
type Tool struct {
	// Package is the main package.
	Package string
	// Module is the module that the package is of.
	Module string
	// Dir is the folder of the nested module, from the root.
	Dir string
	// Output is the file to build.
	Output string
	// LinkerFlags are handed to the linker.
	LinkerFlags string
}

// Root returns the repository's root: the nearest parent of the working directory with this module's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module "+modulePath+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the root of module %s: no parent of the working directory is", modulePath)
		}
		dir = parent
	}
}

// Build compiles the tool unless its file is there in the wanted version already.
func (t Tool) Build(ctx context.Context, log Logf) error {
	version, err := t.Version()
	if err != nil {
		return err
	}
	if builtFrom(t.Output) == version {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(t.Output), 0o755); err != nil {
		return fmt.Errorf("create the folder of %s: %w", t.Output, err)
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(t.Output), ".lock"), log)
	if err != nil {
		return err
	}
	defer unlock()
	if builtFrom(t.Output) == version {
		return nil
	}
	name := filepath.Base(t.Output)
	log("building %s %s", name, version)
	started := time.Now()
	if err := t.compile(ctx); err != nil {
		return fmt.Errorf("build %s %s: %w", name, version, err)
	}
	log("built %s %s in %s", name, version, time.Since(started).Round(time.Second))
	return nil
}

func (t Tool) compile(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	return build(ctx, t.Output, "-C", filepath.Join(root, t.Dir), "-trimpath", "-ldflags", "-s -w "+t.LinkerFlags, t.Package)
}

// Program compiles a main package of this repository, given from the root, into output.
func Program(ctx context.Context, pkg, output string, log Logf) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return fmt.Errorf("create the folder of %s: %w", output, err)
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(output), ".lock"), log)
	if err != nil {
		return err
	}
	defer unlock()
	// Most that ask find it built, by the package before them: go links anew what it does not find up to date where it writes.
	if err := copyProgram(output, partialOf(output)); err != nil {
		return fmt.Errorf("copy %s: %w", output, err)
	}
	return build(ctx, output, "-C", root, pkg)
}

// copyProgram copies a program if there is one.
func copyProgram(from, to string) error {
	content, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// partialOf is where a program is built before it is put in place.
func partialOf(output string) string { return output + ".partial" }

// build compiles beside the output and then puts it in place: a program that runs cannot be written to.
func build(ctx context.Context, output string, args ...string) error {
	partial := partialOf(output)
	args = append([]string{"build"}, args...)
	// The package comes last, whatever flags there are.
	args = append(args[:len(args)-1:len(args)-1], "-o", partial, args[len(args)-1])
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if message, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, message)
	}
	if err := os.Rename(partial, output); err != nil {
		return fmt.Errorf("put %s in place: %w", output, err)
	}
	return nil
}

// Version reads from the nested go.mod which version of the tool's module it requires.
func (t Tool) Version() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, t.Dir, "go.mod")
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the version of %s: %w", t.Module, err)
	}
	requirement := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(t.Module) + `\s+(v\S+)`)
	match := requirement.FindSubmatch(content)
	if match == nil {
		return "", fmt.Errorf("read the version of %s: %s does not require it", t.Module, path)
	}
	return string(match[1]), nil
}

// builtFrom returns the version of the module that the program at path was built from; empty where there is none.
func builtFrom(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	return info.Main.Version
}

// lock takes the lock file at path, which test packages that run side by side share, and returns what gives it back.
func lock(ctx context.Context, path string, log Logf) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	for waiting := false; ; waiting = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("take the lock %s: %w", path, err)
		}
		if !waiting {
			log("waiting for another process that builds in %s", filepath.Dir(path))
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, err)
		}
	}
}

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
