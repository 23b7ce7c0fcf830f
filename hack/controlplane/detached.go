package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"supportaccess.dev/operator/hack/controlplane/process"
)

// processList is the file in a control plane's folder that names what Down is to stop.
const processList = "processes.json"

// ProcessRecord names a program that was left running.
type ProcessRecord struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	Path string `json:"path"`
}

// RecordProcess adds a program to those that Down stops in dir.
func RecordProcess(dir string, record ProcessRecord) error {
	records, err := readProcesses(dir)
	if err != nil {
		return err
	}
	return writeProcesses(dir, append(records, record))
}

// Running tells whether anything that was left running in dir still runs.
func Running(dir string) (bool, error) {
	records, err := readProcesses(dir)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(records, ProcessRecord.alive), nil
}

// Down stops what was left running in dir, the one started last first.
func Down(ctx context.Context, dir string, log Logf) error {
	records, err := readProcesses(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, record := range slices.Backward(records) {
		if !record.alive() {
			continue
		}
		log("stopping %s (%d)", record.Name, record.PID)
		errs = append(errs, record.stop(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return forgetProcesses(dir)
}

func (r ProcessRecord) alive() bool { return process.Alive(r.PID, r.Path) }

// stop signals by number, each time after a look at what the number stands for.
func (r ProcessRecord) stop(ctx context.Context) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(r.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop %s (%d): %w", r.Name, r.PID, err)
		}
		bounded, cancel := context.WithTimeout(ctx, stopGrace)
		gone := r.awaitEnd(bounded)
		cancel()
		if gone {
			return process.KillGroup(r.PID)
		}
	}
	return fmt.Errorf("stop %s (%d): it is still there", r.Name, r.PID)
}

func (r ProcessRecord) awaitEnd(ctx context.Context) bool {
	for r.alive() {
		if pause(ctx, 20*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

func readProcesses(dir string) ([]ProcessRecord, error) {
	content, err := os.ReadFile(filepath.Join(dir, processList))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what runs: %w", err)
	}
	var records []ProcessRecord
	if err := json.Unmarshal(content, &records); err != nil {
		return nil, fmt.Errorf("read what runs: %w", err)
	}
	return records, nil
}

func writeProcesses(dir string, records []ProcessRecord) error {
	content, err := json.MarshalIndent(records, "", "  ")
	if err != nil {
		return fmt.Errorf("write what runs: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, processList), content, 0o600); err != nil {
		return fmt.Errorf("write what runs: %w", err)
	}
	return nil
}

func forgetProcesses(dir string) error {
	if err := os.Remove(filepath.Join(dir, processList)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what ran: %w", err)
	}
	return nil
}
