package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"supportaccess.dev/operator/hack/controlplane/process"
)

const (
	// Password is the administrator's. It is asked for over TCP, and not in the socket's folder, which is the server's own.
	Password = "correct-horse-battery-staple"
	admin    = "postgres"
	// ready is how long a server may take until it answers, leave until it has ended.
	ready = 60 * time.Second
	leave = 20 * time.Second
)

// Server is a PostgreSQL that runs here until it is stopped.
type Server struct {
	// CA is a file with the certificate by which the server is known, as "localhost".
	CA string

	bin, dir string
	port     int
	settings []string
	// owner is who runs it: not root, which it refuses. Nil where this is not root either.
	owner   *syscall.Credential
	process *process.Process
}

// Start makes a server with nothing in it, and starts it with some settings, such as fsync=off.
func Start(ctx context.Context, say func(format string, args ...any), settings ...string) (*Server, error) {
	bin, err := Install(ctx, say)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, settings: settings}
	if s.dir, err = os.MkdirTemp("", "postgres-"); err != nil {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if err := s.make(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) make(ctx context.Context) error {
	var err error
	if s.owner, err = unprivileged(); err != nil {
		return err
	}
	if err := s.give(s.dir); err != nil {
		return err
	}
	if err := s.initialize(ctx); err != nil {
		return err
	}
	if err := s.certify(); err != nil {
		return err
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	return s.Run(ctx)
}

// unprivileged returns as whom the server runs, where this is root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // Whoever is nobody special runs it as themselves.
	}
	for _, name := range []string{"postgres", "nobody"} {
		known, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, bad := strconv.ParseUint(known.Uid, 10, 32)
		gid, worse := strconv.ParseUint(known.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(bad, worse)
	}
	return nil, errors.New("there is neither a user postgres nor nobody, and it does not run as root")
}

// give makes a file the server's.
func (s *Server) give(path string) error {
	if s.owner == nil {
		return nil
	}
	return os.Chown(path, int(s.owner.Uid), int(s.owner.Gid))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// initialize makes the files of a server.
func (s *Server) initialize(ctx context.Context) error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o600); err != nil {
		return err
	}
	if err := s.give(password); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--pgdata", s.data(), "--username", admin, "--pwfile", password,
		"--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--no-instructions")
	command.Dir, command.Env = s.dir, s.env()
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, last(string(out)))
	}
	return nil
}

func (s *Server) env() []string {
	return []string{"PATH=" + s.bin + ":/usr/bin:/bin", "HOME=" + s.dir, "LC_ALL=C"}
}

// freePort returns a port that nobody listens to. Somebody else may take it until the server does, which then says so.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// Run starts a server that was stopped, and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	args := []string{
		"-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200",
		"-c", "ssl=on", "-c", "ssl_cert_file=" + filepath.Join(s.dir, "server.crt"), "-c", "ssl_key_file=" + filepath.Join(s.dir, "server.key"),
	}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	var err error
	s.process, err = process.Command{
		Name: "postgres", Path: filepath.Join(s.bin, "postgres"), Args: args,
		Dir: s.dir, Env: s.env(), User: s.owner, LogPath: filepath.Join(s.dir, "log"),
	}.Start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ticker.C:
		case <-s.process.Done():
			return fmt.Errorf("it ended: %s", s.process.Tail())
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w: %s", err, s.process.Tail())
		}
	}
}

// URL leads to a database through the socket, without a password.
func (s *Server) URL(database string) string {
	query := url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}
	return fmt.Sprintf("postgres://%s@/%s?%s", admin, database, query.Encode())
}

// RemoteURL leads to a database over TCP, with whatever password.
func (s *Server) RemoteURL(database, password string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(admin, password), Host: "localhost:" + strconv.Itoa(s.port), Path: "/" + database}).String()
}

// Exec does something in a database as its administrator.
func (s *Server) Exec(ctx context.Context, database, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
	return errors.Join(err, conn.Close(ctx))
}

// How a server ends: it cuts everybody off and ends in order, or as in a crash.
const (
	Fast      = syscall.SIGINT
	Immediate = syscall.SIGQUIT
)

// End ends the server and leaves its files.
func (s *Server) End(how syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Signal(how); err != nil {
		return err
	}
	if !s.process.Await(leave) {
		return s.process.Kill()
	}
	return nil
}

// Stop ends the server and removes its files.
func (s *Server) Stop() error {
	return errors.Join(s.End(Fast), os.RemoveAll(s.dir))
}
