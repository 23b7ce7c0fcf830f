package postgres

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// SkipVariable leaves out the tests that need PostgreSQL, where it is set to 1.
const SkipVariable = "SKIP_POSTGRES"

// Skipped says that the tests that need PostgreSQL are to be left out.
func Skipped() bool { return os.Getenv(SkipVariable) == "1" }

// The servers that the tests of a package share, each started by the first of them that needs it.
var (
	shared struct {
		sync.Mutex
		servers map[bool]*Server
		err     error
	}
	databases atomic.Int64
)

// Main runs the tests of a package, and stops the servers that they have shared.
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	for _, server := range shared.servers {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// Shared returns the server that the tests of a package share. Where there is none, and none can be had, the test fails.
// That of benchmarks outlives a loss of power, which takes its time; that of tests outlives its own death.
func Shared(t testing.TB) *Server {
	t.Helper()
	if Skipped() {
		t.Skipf("%s=1", SkipVariable)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	_, durable := t.(*testing.B)
	if server := shared.servers[durable]; server != nil {
		return server
	}
	settings := []string{"fsync=off"}
	if durable {
		settings = nil
	}
	server, err := Start(context.Background(), t.Logf, settings...)
	if err != nil {
		shared.err = err
		t.Fatal(err)
	}
	if shared.servers == nil {
		shared.servers = map[bool]*Server{}
	}
	shared.servers[durable] = server
	return server
}

// Database makes a database for a test, and returns its name. It goes with the server.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if err := s.Exec(t.Context(), admin, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	return name
}
