package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit"
)

//go:embed index.sql
var indexSchema string

// indexApplication marks a file as the index of an audit log of ours: "sali".
const indexApplication = 0x73616c69

// index is what entries are found by, in a file beside the log. It follows the log: whoever appends does not wait for it, and
// whoever asks is answered from the lines of those entries that it does not have yet.
type index struct {
	writer *sql.DB
	reader *sql.DB
	// wake has something in it when entries were appended.
	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}
}

// indexPath is where the index of a log lies.
func indexPath(log string) string { return log + ".index" }

// Pragmas of who keeps the index: it may fall back after a crash of the machine, and is never broken by one.
var followed = []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "trusted_schema(OFF)", "cache_size(-16000)"}

// openIndex opens the index of a log and makes it anew where there is none, or none of this log.
func (s *Store) openIndex(ctx context.Context, path string) error {
	for again := range 2 {
		err := s.tryIndex(ctx, path)
		if err == nil {
			break
		}
		if s.index != nil {
			err = errors.Join(err, s.index.close())
		}
		if again > 0 {
			return fmt.Errorf("open its index: %w", err)
		}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(indexPath(path) + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove its index, which is none: %w", err)
			}
		}
	}
	ctx, s.index.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.follow(ctx)
	return nil
}

func (s *Store) tryIndex(ctx context.Context, path string) error {
	s.index = &index{wake: make(chan struct{}, 1), done: make(chan struct{})}
	var err error
	if s.index.writer, err = sql.Open("sqlite", source(indexPath(path), followed)); err != nil {
		return err
	}
	s.index.writer.SetMaxOpenConns(1)
	if err := migrate(ctx, s.index.writer, indexSchema, indexForm); err != nil {
		return err
	}
	if s.index.reader, err = openReader(indexPath(path)); err != nil {
		return err
	}
	return s.checkIndex(ctx)
}

// checkIndex is an error if the index is not of this log: somebody has put another one, or an older copy, in its place.
func (s *Store) checkIndex(ctx context.Context) error {
	through, last, err := progress(ctx, s.index.reader)
	if err != nil || through == 0 {
		return err
	}
	known, err := s.ReadHashes([]int64{tlog.StoredHashIndex(0, through-1)})
	if errors.Is(err, audit.ErrRemoved) {
		return nil
	}
	if err == nil && known[0] != last {
		err = fmt.Errorf("entry %d is another", through)
	}
	return err
}

// openIndexReader opens what there is of the index of a log that another process may write.
func (s *Store) openIndexReader(ctx context.Context, path string) error {
	if _, err := os.Stat(indexPath(path)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	reader, err := openReader(indexPath(path))
	if err != nil {
		return err
	}
	s.index = &index{reader: reader}
	if known, err := isOurs(ctx, reader, indexForm); err != nil || !known || s.checkIndex(ctx) != nil {
		// Without it everything is found all the same, only later.
		err := s.index.close()
		s.index = nil
		return err
	}
	return nil
}

func (x *index) close() error {
	if x == nil {
		return nil
	}
	if x.stop != nil {
		x.stop()
		<-x.done
	}
	var all []error
	for _, db := range []*sql.DB{x.reader, x.writer} {
		if db != nil {
			all = append(all, db.Close())
		}
	}
	return errors.Join(all...)
}

// appended tells the index that there is more.
func (x *index) appended() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// progress returns through which entry there is an index, and the hash of that entry's line.
func progress(ctx context.Context, db querier) (through int64, last tlog.Hash, err error) {
	var hash []byte
	err = db.QueryRowContext(ctx, "SELECT through, last FROM progress").Scan(&through, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, last, nil
	}
	if err == nil && copy(last[:], hash) != tlog.HashSize {
		err = errors.New("there is no hash")
	}
	if err != nil {
		return 0, last, fmt.Errorf("select how far the index goes: %w", err)
	}
	return through, last, nil
}

const (
	// gathered is for how long entries are gathered before they are put into the index together.
	gathered = 100 * time.Millisecond
	// unindexable is after how long an index is tried again that could not be written.
	unindexable = 10 * time.Second
	// followedAtOnce is how many entries are put into the index in one transaction.
	followedAtOnce = 200
)

// follow puts entries into the index as they come.
func (s *Store) follow(ctx context.Context) {
	defer close(s.index.done)
	for {
		n, err := s.step(ctx)
		switch {
		case err != nil:
			pause(ctx, unindexable)
		case n < followedAtOnce:
			select {
			case <-s.index.wake:
				pause(ctx, gathered)
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// step puts the next entries into the index, and returns how many.
func (s *Store) step(ctx context.Context) (int, error) {
	through, _, err := progress(ctx, s.index.reader)
	if err != nil {
		return 0, err
	}
	lines, err := s.lines(ctx, "SELECT seq, line FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", through, followedAtOnce)
	if err != nil || len(lines) == 0 {
		return 0, err
	}
	return len(lines), within(ctx, s.index.writer, func(tx *sql.Tx) error { return put(ctx, tx, lines) })
}

// put puts entries into the index.
func put(ctx context.Context, tx *sql.Tx, lines []audit.Line) error {
	facet, err := tx.PrepareContext(ctx, `INSERT INTO facets (seq, time, type, source, grant_uid, grant_namespace, grant_name, engineer, case_id,
		namespace, granted_from, verb, resource, section, outcome, recording, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	letters, err := tx.PrepareContext(ctx, "INSERT INTO letters (rowid, text) VALUES (?, ?)")
	if err != nil {
		return err
	}
	for _, line := range lines {
		f := facetsOf(line)
		text := strings.ToLower(f.Text)
		if _, err := facet.ExecContext(ctx, line.Seq, f.Time.UnixMicro(), string(f.Type), f.Source, f.Grant.UID, f.Grant.Namespace, f.Grant.Name,
			f.Engineer, f.Case, f.Namespace, f.GrantedFrom(), f.Verb, f.Resource, string(f.Section), string(f.Outcome), f.Recording, text); err != nil {
			return fmt.Errorf("insert what entry %d is found by: %w", line.Seq, err)
		}
		if _, err := letters.ExecContext(ctx, line.Seq, text); err != nil {
			return fmt.Errorf("insert the letters of entry %d: %w", line.Seq, err)
		}
	}
	last := lines[len(lines)-1]
	hash := tlog.RecordHash(last.Text)
	_, err = tx.ExecContext(ctx, `INSERT INTO progress (id, through, last) VALUES (1, ?, ?)
		ON CONFLICT (id) DO UPDATE SET through = excluded.through, last = excluded.last`, last.Seq, hash[:])
	return err
}

// facetsOf returns what an entry is found by. One that somebody made unreadable is found by its number alone: to say what is
// wrong with it is the verifier's.
func facetsOf(line audit.Line) *audit.Facets {
	entry := &audit.Entry{}
	if err := json.Unmarshal(line.Text, entry); err != nil {
		return &audit.Facets{}
	}
	f := audit.FacetsOf(entry)
	return &f
}

// sweep removes from the index what was removed from the log.
func (x *index) sweep(ctx context.Context, through int64) error {
	for {
		var removed int64
		err := within(ctx, x.writer, func(tx *sql.Tx) error {
			var last sql.NullInt64
			if err := tx.QueryRowContext(ctx, "SELECT max(seq) FROM (SELECT seq FROM facets WHERE seq <= ? ORDER BY seq LIMIT ?)", through, removal).
				Scan(&last); err != nil || !last.Valid {
				return err
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM letters WHERE rowid IN (SELECT seq FROM facets WHERE seq <= ?)", last.Int64); err != nil {
				return err
			}
			done, err := tx.ExecContext(ctx, "DELETE FROM facets WHERE seq <= ?", last.Int64)
			if err != nil {
				return err
			}
			removed, err = done.RowsAffected()
			return err
		})
		if err != nil {
			return fmt.Errorf("delete from the index up to %d: %w", through, err)
		}
		if removed < removal {
			return nil
		}
	}
}
