package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/sqlite"
)

// exported writes the whole log to a file.
func (s *scene) exported(t *testing.T) string {
	t.Helper()
	store, err := sqlite.OpenReader(t.Context(), s.gateway.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	var out bytes.Buffer
	if err := audit.Export(t.Context(), &out, store); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir, "audit.jsonl")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestALogThatWasRolledBackToAnOlderCopyIsFound(t *testing.T) {
	s := newScene(t)
	admin := s.ControlPlane.AdminConfig()
	ana := s.comes(t, "case-4711")
	s.isKept(t)
	s.runs(t, admin, "audit", "verify", s.exported(t), "--witness").has(t, 0, "Intact", "support.cluster.example/audit")

	// Whoever has the volume takes a copy, and puts it back when they have done what nobody should see.
	s.stops(t)
	folder := filepath.Dir(s.gateway.AuditLog())
	copied := filepath.Join(s.Dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	s.opens(t)
	for range 5 {
		if err := ana.reads(t, "secrets"); err == nil {
			t.Fatal("the engineer reads Secrets")
		}
		if err := ana.reads(t, "services"); err != nil {
			t.Fatal(err)
		}
	}
	s.isKept(t)
	before, err := s.kept(t)
	if err != nil {
		t.Fatal(err)
	}
	s.stops(t)
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(folder, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}

	// The gateway goes on with it, as it is of one piece.
	s.opens(t)
	s.isTold(t, "CheckpointRefused", "RolledBack")
	s.runs(t, admin, "audit", "verify", s.exported(t), "--witness").has(t, 4, "RolledBack")
	// Nor does it help to go on until there are more.
	for s.size(t) <= before.Size() {
		if err := ana.reads(t, "configmaps"); err != nil {
			t.Fatal(err)
		}
	}
	s.isTold(t, "CheckpointRefused", "Forked")
	s.runs(t, admin, "audit", "verify", s.exported(t), "--witness").has(t, 4, "Forked")
	after, err := s.kept(t)
	if err != nil || after.Size() != before.Size() || after.Checkpoint != before.Checkpoint {
		t.Errorf("kept is %+v (%v), and was %+v", after, err, before)
	}
}
