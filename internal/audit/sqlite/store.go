// Package sqlite keeps an audit log in one file, for one gateway. It knows rows, and nothing of what they prove.
package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"
	_ "modernc.org/sqlite" // The driver.

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

//go:embed schema.sql
var schema string

// application marks a file as an audit log of ours: "sala".
const application = 0x73616c61

// form is what a file says it is: whose, and of which version its tables are.
type form struct{ mark, version int }

// logForm is that of a log, indexForm that of its index.
var (
	logForm   = form{application, 1}
	indexForm = form{indexApplication, 2}
)

// Store is an audit log in a file.
type Store struct {
	writer *sql.DB
	reader *sql.DB
	insert statements
	lock   *os.File
	// index is what entries are found by; nil where the log is only read and there is none.
	index *index
	// stands is how the log stands after what was committed last, if sure: nobody else writes.
	stands *audit.Standing
	sure   bool
	// carries says that there is a table of who has how much of the log.
	carries atomic.Bool
}

// statements are prepared once.
type statements struct {
	entry, milestone, standing *sql.Stmt
}

// Open opens the log in a file, for one writer, and makes the file if there is none.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	lock, err := claim(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open the audit log %s: %w", path, err)
	}
	s := &Store{lock: lock}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the audit log %s: %w", path, err), s.Close())
	}
	return s, nil
}

// claim takes what only one process can have. Where it lies nothing else is locked, so that SQLite's own locks are left
// alone.
func claim(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // The path is the operator's own flag.
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock it, which another process may have done: %w", err), lock.Close())
	}
	return lock, nil
}

// Pragmas of who writes: what COMMIT returns from is on the disk.
var durable = []string{
	"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "recursive_triggers(ON)", "trusted_schema(OFF)",
	"wal_autocheckpoint(2000)", "cache_size(-16000)",
}

func (s *Store) open(ctx context.Context, path string) error {
	// Others of the machine have no business with it, and SQLite gives its other files the mode of this one.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // The path is the operator's own flag.
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if s.writer, err = sql.Open("sqlite", source(path, durable)); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if err := migrate(ctx, s.writer, schema, logForm); err != nil {
		return err
	}
	// SQLite sees to its other files; this one was made here.
	if err := audit.SyncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make its folder durable: %w", err)
	}
	if s.reader, err = openReader(path); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.openIndex(ctx, path); err != nil {
		return err
	}
	stub, err := s.Stub(ctx)
	if err != nil || stub == nil {
		return err
	}
	return s.sweep(ctx, stub.Through)
}

// OpenReader opens the log in a file to read it, while another process may write.
func OpenReader(ctx context.Context, path string) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	reader, err := openReader(path)
	if err != nil {
		return nil, fmt.Errorf("open the audit log %s: %w", path, err)
	}
	s := &Store{reader: reader}
	if known, err := isOurs(ctx, reader, logForm); err != nil || !known {
		return nil, errors.Join(fmt.Errorf("open the audit log %s: it is none", path), err, s.Close())
	}
	if err := s.openIndexReader(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the index of the audit log %s: %w", path, err), s.Close())
	}
	return s, nil
}

func openReader(path string) (*sql.DB, error) {
	reader, err := sql.Open("sqlite", source(path, []string{"busy_timeout(10000)", "query_only(ON)", "trusted_schema(OFF)", "cache_size(-16000)"}))
	if err != nil {
		return nil, err
	}
	reader.SetMaxOpenConns(readers)
	return reader, nil
}

// readers is how many read at once.
const readers = 4

// source returns how the driver is told of a file.
func source(path string, pragmas []string) string {
	// Who writes says so at once, and not in the middle.
	query := url.Values{"_txlock": {"immediate"}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// migrate makes the tables in a file that is empty, and refuses one that is something else.
func migrate(ctx context.Context, db *sql.DB, tables string, wanted form) error {
	var made int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&made); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	if made > 0 {
		known, err := isOurs(ctx, db, wanted)
		if err == nil && !known {
			err = errors.New("it is something else")
		}
		return err
	}
	return within(ctx, db, func(tx *sql.Tx) error {
		marks := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", wanted.mark, wanted.version)
		_, err := tx.ExecContext(ctx, tables+marks)
		return err
	})
}

// isOurs says whether a file is what its mark says. One that a later version made is an error.
func isOurs(ctx context.Context, db *sql.DB, wanted form) (bool, error) {
	var mark, made int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&mark); err != nil {
		return false, err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&made); err != nil {
		return false, err
	}
	if mark == wanted.mark && made > wanted.version {
		return false, fmt.Errorf("a later version has written it: its tables are of version %d, known is %d", made, wanted.version)
	}
	// An index of before is none: it is made anew. A log of before does not exist.
	return mark == wanted.mark && made == wanted.version, nil
}

func (s *Store) prepare(ctx context.Context) error {
	for text, into := range map[string]**sql.Stmt{
		"INSERT INTO entries (seq, line, hashes) VALUES (?, ?, ?)": &s.insert.entry,
		"INSERT INTO checkpoints (size, checkpoint) VALUES (?, ?)": &s.insert.milestone,
		`INSERT INTO standing (id, size, last, edge, checkpoint, keys) VALUES (1, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET size = excluded.size, last = excluded.last, edge = excluded.edge,
				checkpoint = excluded.checkpoint, keys = excluded.keys`: &s.insert.standing,
	} {
		made, err := s.writer.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		*into = made
	}
	return nil
}

// Close closes the file.
func (s *Store) Close() error {
	all := []error{s.index.close()}
	for _, db := range []*sql.DB{s.reader, s.writer} {
		if db != nil {
			all = append(all, db.Close())
		}
	}
	if s.lock != nil {
		all = append(all, s.lock.Close())
	}
	return errors.Join(all...)
}

// within does something in one transaction.
func within(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		// SQLite may leave the transaction open, on the only connection, and then there would be no next one.
		_, _ = db.ExecContext(ctx, "ROLLBACK")
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Commit makes durable what follows.
func (s *Store) Commit(ctx context.Context, follow audit.Follow) error {
	if !s.sure {
		// What a failed write left is durable or it is not: the file says.
		stands, err := s.Load(ctx)
		if err != nil {
			return fmt.Errorf("read where the log ends: %w", err)
		}
		s.stands, s.sure = stands, true
	}
	rows, after, err := follow(s.stands)
	if err != nil {
		return err
	}
	s.sure = false
	if err := s.put(ctx, rows, after); err != nil {
		return err
	}
	s.stands, s.sure = &after, true
	s.index.appended()
	return nil
}

// put makes rows durable together with how the log stands after them.
func (s *Store) put(ctx context.Context, rows []audit.Row, after audit.Standing) error {
	return within(ctx, s.writer, func(tx *sql.Tx) error {
		entry := tx.StmtContext(ctx, s.insert.entry)
		for _, r := range rows {
			if _, err := entry.ExecContext(ctx, r.Seq, r.Line, chain.Join(r.Hashes)); err != nil {
				return fmt.Errorf("insert entry %d: %w", r.Seq, err)
			}
		}
		if after.Milestone {
			if _, err := tx.StmtContext(ctx, s.insert.milestone).ExecContext(ctx, after.Size, after.Checkpoint); err != nil {
				return fmt.Errorf("insert the checkpoint of %d: %w", after.Size, err)
			}
		}
		_, err := tx.StmtContext(ctx, s.insert.standing).ExecContext(ctx, after.Size, after.Last[:], chain.Join(after.Edge), after.Checkpoint,
			strings.Join(after.Keys, "\n"))
		if err != nil {
			return fmt.Errorf("update how the log stands: %w", err)
		}
		return nil
	})
}

// Load returns how the log stands.
func (s *Store) Load(ctx context.Context) (*audit.Standing, error) {
	return loadFrom(ctx, s.reader)
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func loadFrom(ctx context.Context, db querier) (*audit.Standing, error) {
	var standing audit.Standing
	var last, edge []byte
	var keys string
	err := db.QueryRowContext(ctx, "SELECT size, last, edge, checkpoint, keys FROM standing").
		Scan(&standing.Size, &last, &edge, &standing.Checkpoint, &keys)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // A log that was never written stands nowhere.
	}
	if err != nil {
		return nil, fmt.Errorf("select how the log stands: %w", err)
	}
	standing.Keys = strings.Split(keys, "\n")
	if standing.Last, standing.Edge, err = chain.SplitEdge(last, edge); err != nil {
		return nil, fmt.Errorf("read how the log stands: %w", err)
	}
	return &standing, nil
}

// Stub returns what entries that were removed have left, nil if none were.
func (s *Store) Stub(ctx context.Context) (*audit.Stub, error) {
	return stubFrom(ctx, s.reader)
}

func stubFrom(ctx context.Context, db querier) (*audit.Stub, error) {
	var stub audit.Stub
	var last, edge []byte
	err := db.QueryRowContext(ctx, "SELECT through, last, edge, checkpoint FROM stub").Scan(&stub.Through, &last, &edge, &stub.Checkpoint)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // A log of which nothing was removed has no stub.
	}
	if err != nil {
		return nil, fmt.Errorf("select the stub: %w", err)
	}
	if stub.Last, stub.Edge, err = chain.SplitEdge(last, edge); err != nil {
		return nil, fmt.Errorf("read the stub: %w", err)
	}
	return &stub, nil
}

// removal is how many entries are removed at once, so that who appends waits little.
const removal = 1000

// Cut makes durable where the log begins from now on, and then removes what is before that.
func (s *Store) Cut(ctx context.Context, stub audit.Stub) error {
	_, err := s.writer.ExecContext(ctx, `INSERT INTO stub (id, through, last, edge, checkpoint) VALUES (1, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET through = excluded.through, last = excluded.last, edge = excluded.edge, checkpoint = excluded.checkpoint
		WHERE excluded.through > stub.through`, stub.Through, stub.Last[:], chain.Join(stub.Edge), stub.Checkpoint)
	if err != nil {
		return fmt.Errorf("update the stub: %w", err)
	}
	return s.sweep(ctx, stub.Through)
}

// sweep removes what is before the log's beginning. A crash may leave some of it, which nobody reads.
func (s *Store) sweep(ctx context.Context, through int64) error {
	for {
		removed := int64(0)
		err := within(ctx, s.writer, func(tx *sql.Tx) error {
			done, err := tx.ExecContext(ctx, "DELETE FROM entries WHERE seq IN (SELECT seq FROM entries WHERE seq <= ? ORDER BY seq LIMIT ?)", through, removal)
			if err != nil {
				return err
			}
			if removed, err = done.RowsAffected(); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, "DELETE FROM checkpoints WHERE size <= ?", through)
			return err
		})
		if err != nil {
			return fmt.Errorf("delete entries up to %d: %w", through, err)
		}
		if removed < removal {
			return s.index.sweep(ctx, through)
		}
	}
}

// ReadHashes reads hashes of the tree. Of entries that were removed there are those that others need.
func (s *Store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	ctx := context.Background()
	stub, err := s.Stub(ctx)
	if err != nil {
		return nil, err
	}
	left, err := stub.Hashes()
	if err != nil {
		return nil, err
	}
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if hash, ok := left[index]; ok {
			found[i] = hash
			continue
		}
		found[i], err = s.readHash(ctx, index)
		if seq, _ := chain.Stored(index); errors.Is(err, sql.ErrNoRows) && stub != nil && seq <= stub.Through {
			err = audit.ErrRemoved
		}
		if err != nil {
			return nil, fmt.Errorf("read hash %d of the tree: %w", index, err)
		}
	}
	return found, nil
}

func (s *Store) readHash(ctx context.Context, index int64) (tlog.Hash, error) {
	seq, level := chain.Stored(index)
	var hash tlog.Hash
	var stored []byte
	err := s.reader.QueryRowContext(ctx, "SELECT substr(hashes, ?, ?) FROM entries WHERE seq = ?", level*tlog.HashSize+1, tlog.HashSize, seq).Scan(&stored)
	if err != nil {
		return hash, err
	}
	if copy(hash[:], stored) != tlog.HashSize {
		return hash, fmt.Errorf("entry %d has no hash of level %d", seq, level)
	}
	return hash, nil
}
