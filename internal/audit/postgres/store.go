// Package postgres keeps an audit log in PostgreSQL, for several gateways that go on with it in turn. It knows rows, and
// nothing of what they prove.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/tlog"

	"supportaccess.dev/operator/internal/audit"
	"supportaccess.dev/operator/internal/audit/chain"
)

// Store is an audit log in a database.
type Store struct {
	// writer is nil for who only reads.
	writer *pgxpool.Pool
	reader *pgxpool.Pool
}

// Open opens the log in a database, beside others that write to it, and makes the tables if there are none.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open the audit log in PostgreSQL: %w", said(err)), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, o Options) error {
	var err error
	if s.writer, err = o.pool(ctx, writers, writing); err != nil {
		return err
	}
	if s.reader, err = o.pool(ctx, readers, reading); err != nil {
		return err
	}
	known, err := steps()
	if err != nil {
		return err
	}
	err = s.writer.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		if encoding := conn.Conn().PgConn().ParameterStatus("server_encoding"); encoding != "UTF8" {
			return fmt.Errorf("the database is in %s: make one in UTF8", encoding)
		}
		return migrate(ctx, conn.Conn(), known)
	})
	if err != nil {
		return err
	}
	return s.sweep(ctx)
}

// OpenReader opens the log in a database to read it, while others write.
func OpenReader(ctx context.Context, o Options) (*Store, error) {
	s := &Store{}
	if err := s.openReader(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open the audit log in PostgreSQL: %w", said(err)), s.Close())
	}
	return s, nil
}

func (s *Store) openReader(ctx context.Context, o Options) error {
	known, err := steps()
	if err != nil {
		return err
	}
	if s.reader, err = o.pool(ctx, readers, reading); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.reader, func(tx pgx.Tx) error {
		made, err := versionOf(ctx, tx)
		switch {
		case err != nil:
			return err
		case made == none:
			return errors.New("there is none in this database")
		case made > len(known):
			return later(made, len(known))
		case made < len(known):
			return fmt.Errorf("an earlier version has written it, and no gateway of this one was started yet: its tables are of version %d, known is %d", made, len(known))
		}
		return nil
	})
}

// Close lets go of the database.
func (s *Store) Close() error {
	for _, pool := range []*pgxpool.Pool{s.reader, s.writer} {
		if pool != nil {
			pool.Close()
		}
	}
	return nil
}

// Commit makes durable what follows, when it is this one's turn.
func (s *Store) Commit(ctx context.Context, follow audit.Follow) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, now, err := s.take(ctx)
	if err != nil {
		return fmt.Errorf("read where the log ends: %w", said(err))
	}
	defer conn.Release()
	rows, after, err := follow(now)
	if err == nil {
		if err = put(ctx, conn.Conn(), rows, after); err == nil {
			return nil
		}
		err = fmt.Errorf("insert %d entries before %d: %w", len(rows), after.Size+1, said(err))
	}
	leave(conn)
	return err
}

// leave gives up a connection that may be in the middle of something, or lead to a server that has become one that only
// reads. With it goes the turn.
func leave(conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Conn().Close(ctx)
}

// take waits until nobody else goes on with the log, which they do in the order in which they came, and returns how it
// stands.
func (s *Store) take(ctx context.Context) (*pgxpool.Conn, *audit.Standing, error) {
	var failed error
	// A connection that was cut as it lay idle shows it by now. Nothing was written on it, and the next one is new.
	for range writers + 1 {
		conn, err := s.writer.Acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		now, err := begin(ctx, conn.Conn())
		if err == nil {
			return conn, now, nil
		}
		leave(conn)
		conn.Release()
		failed = err
	}
	return nil, nil, failed
}

// begin takes the turn.
func begin(ctx context.Context, conn *pgx.Conn) (*audit.Standing, error) {
	var now *audit.Standing
	var batch pgx.Batch
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	batch.Queue("SELECT pg_advisory_xact_lock($1)", int64(turnLock))
	// A statement of its own sees what was committed while the one before it waited.
	batch.Queue(selectStanding).QueryRow(func(row pgx.Row) error {
		var err error
		now, err = standingIn(row)
		return err
	})
	err := conn.SendBatch(ctx, &batch).Close()
	return now, err
}

// Inserting many rows takes one statement.
var (
	insertEntries = "INSERT INTO entries (seq, line, hashes) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])"
	insertFacets  = func() string {
		names, places := []string{"seq", "time", "text"}, []string{"$1::bigint[]", "$2::bigint[]", "$3::text[]"}
		for i, column := range columns {
			names, places = append(names, column.name), append(places, fmt.Sprintf("$%d::text[]", i+4))
		}
		return "INSERT INTO facets (" + strings.Join(names, ", ") + ") SELECT * FROM unnest(" + strings.Join(places, ", ") + ")"
	}()
)

const (
	insertMilestone = "INSERT INTO checkpoints (size, checkpoint) VALUES ($1, $2)"
	upsertStanding  = `INSERT INTO standing (id, size, last, edge, checkpoint, keys) VALUES (1, $1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET size = excluded.size, last = excluded.last, edge = excluded.edge,
			checkpoint = excluded.checkpoint, keys = excluded.keys`
	selectStanding = "SELECT size, last, edge, checkpoint, keys FROM standing"
)

// put makes rows durable together with how the log stands after them, in one round trip.
func put(ctx context.Context, conn *pgx.Conn, rows []audit.Row, after audit.Standing) error {
	var batch pgx.Batch
	seqs, lines, hashes := make([]int64, len(rows)), make([][]byte, len(rows)), make([][]byte, len(rows))
	for i, r := range rows {
		seqs[i], lines[i], hashes[i] = r.Seq, r.Line, chain.Join(r.Hashes)
	}
	batch.Queue(insertEntries, seqs, lines, hashes)
	batch.Queue(insertFacets, facets(seqs, rows)...)
	if after.Milestone {
		batch.Queue(insertMilestone, after.Size, after.Checkpoint)
	}
	batch.Queue(upsertStanding, after.Size, after.Last[:], chain.Join(after.Edge), after.Checkpoint, strings.Join(after.Keys, "\n"))
	batch.Queue("COMMIT").Exec(func(done pgconn.CommandTag) error {
		if done.String() != "COMMIT" {
			return fmt.Errorf("the server answered %s", done)
		}
		return nil
	})
	return conn.SendBatch(ctx, &batch).Close()
}

// facets returns the values of insertFacets, a list for each column.
func facets(seqs []int64, rows []audit.Row) []any {
	times, texts := make([]int64, len(rows)), make([]string, len(rows))
	for i := range rows {
		times[i], texts[i] = rows[i].Facets.Time.UnixMicro(), text(rows[i].Facets.Text)
	}
	values := []any{seqs, times, texts}
	for _, column := range columns {
		words := make([]string, len(rows))
		for i := range rows {
			words[i] = word(column.of(&rows[i].Facets))
		}
		values = append(values, words)
	}
	return values
}

// Load returns how the log stands.
func (s *Store) Load(ctx context.Context) (*audit.Standing, error) {
	standing, err := standingIn(s.reader.QueryRow(ctx, selectStanding))
	if err != nil {
		return nil, fmt.Errorf("select how the log stands: %w", said(err))
	}
	return standing, nil
}

func standingIn(row pgx.Row) (*audit.Standing, error) {
	var standing audit.Standing
	var last, edge []byte
	var keys string
	err := row.Scan(&standing.Size, &last, &edge, &standing.Checkpoint, &keys)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // A log that was never written stands nowhere.
	}
	if err != nil {
		return nil, err
	}
	standing.Keys = strings.Split(keys, "\n")
	standing.Last, standing.Edge, err = chain.SplitEdge(last, edge)
	return &standing, err
}

// Stub returns what entries that were removed have left, nil if none were.
func (s *Store) Stub(ctx context.Context) (*audit.Stub, error) {
	var stub audit.Stub
	var last, edge []byte
	err := s.reader.QueryRow(ctx, "SELECT through, last, edge, checkpoint FROM stub").Scan(&stub.Through, &last, &edge, &stub.Checkpoint)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // A log of which nothing was removed has no stub.
	}
	if err != nil {
		return nil, fmt.Errorf("select the stub: %w", said(err))
	}
	if stub.Last, stub.Edge, err = chain.SplitEdge(last, edge); err != nil {
		return nil, fmt.Errorf("read the stub: %w", err)
	}
	return &stub, nil
}

// Before returns the number of the last entry before which all are older than an instant.
func (s *Store) Before(ctx context.Context, instant time.Time) (int64, error) {
	var first, last, younger int64
	// In one statement: what is appended meanwhile is not older.
	err := s.reader.QueryRow(ctx, `SELECT coalesce((SELECT min(seq) FROM facets), 0), coalesce((SELECT max(seq) FROM facets), 0),
		coalesce((SELECT seq FROM facets WHERE time + 0 >= $1 ORDER BY seq LIMIT 1), 0)`, instant.UnixMicro()).Scan(&first, &last, &younger)
	switch {
	case err != nil:
		return 0, fmt.Errorf("select the first entry since %s: %w", instant, said(err))
	case younger == 0:
		return last, nil
	case younger == first:
		return 0, nil
	}
	return younger - 1, nil
}

// removal is how many entries are removed at once.
const removal = 1000

// Cut makes durable where the log begins from now on, and then removes what is before that.
func (s *Store) Cut(ctx context.Context, stub audit.Stub) error {
	_, err := s.writer.Exec(ctx, `INSERT INTO stub (id, through, last, edge, checkpoint) VALUES (1, $1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET through = excluded.through, last = excluded.last, edge = excluded.edge, checkpoint = excluded.checkpoint
		WHERE excluded.through > stub.through`, stub.Through, stub.Last[:], chain.Join(stub.Edge), stub.Checkpoint)
	if err != nil {
		return fmt.Errorf("update the stub: %w", said(err))
	}
	return s.sweep(ctx)
}

// sweep removes what is before the log's beginning, unless another replica does. A crash may leave some of it, which nobody
// reads.
func (s *Store) sweep(ctx context.Context) error {
	for {
		removed := int64(0)
		err := pgx.BeginFunc(ctx, s.writer, func(tx pgx.Tx) error {
			alone := false
			if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(sweepLock)).Scan(&alone); err != nil || !alone {
				return err
			}
			for _, table := range []string{"entries", "facets"} {
				done, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE seq IN (SELECT seq FROM "+table+
					" WHERE seq <= (SELECT through FROM stub) ORDER BY seq LIMIT $1)", removal)
				if err != nil {
					return err
				}
				removed = done.RowsAffected()
			}
			_, err := tx.Exec(ctx, "DELETE FROM checkpoints WHERE size <= (SELECT through FROM stub)")
			return err
		})
		if err != nil {
			return fmt.Errorf("delete entries that were removed: %w", said(err))
		}
		if removed < removal {
			return nil
		}
	}
}

// ReadHashes reads hashes of the tree. Of entries that were removed there are those that others need.
func (s *Store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kept, err := s.hashes(ctx, indexes)
	if err != nil {
		return nil, fmt.Errorf("select hashes of the tree: %w", said(err))
	}
	found := make([]tlog.Hash, len(indexes))
	var gone []int
	for i, index := range indexes {
		seq, level := chain.Stored(index)
		if level >= len(kept[seq]) {
			gone = append(gone, i)
			continue
		}
		found[i] = kept[seq][level]
	}
	if len(gone) == 0 {
		return found, nil
	}
	stub, err := s.Stub(ctx)
	if err != nil {
		return nil, err
	}
	left, err := stub.Hashes()
	if err != nil {
		return nil, err
	}
	for _, i := range gone {
		hash, ok := left[indexes[i]]
		if !ok {
			return nil, lacks(indexes[i], stub)
		}
		found[i] = hash
	}
	return found, nil
}

// lacks says why there is not a hash.
func lacks(index int64, stub *audit.Stub) error {
	seq, level := chain.Stored(index)
	if stub != nil && seq <= stub.Through {
		return fmt.Errorf("read hash %d of the tree: %w", index, audit.ErrRemoved)
	}
	return fmt.Errorf("read hash %d of the tree: entry %d has no hash of level %d", index, seq, level)
}

// hashes returns the hashes that came with entries, by their numbers.
func (s *Store) hashes(ctx context.Context, indexes []int64) (map[int64][]tlog.Hash, error) {
	seqs := make([]int64, len(indexes))
	for i, index := range indexes {
		seqs[i], _ = chain.Stored(index)
	}
	slices.Sort(seqs)
	rows, err := s.reader.Query(ctx, "SELECT seq, hashes FROM entries WHERE seq = ANY($1)", slices.Compact(seqs))
	if err != nil {
		return nil, err
	}
	var seq int64
	var joined []byte
	kept := map[int64][]tlog.Hash{}
	_, err = pgx.ForEachRow(rows, []any{&seq, &joined}, func() error {
		var err error
		kept[seq], err = chain.Split(joined)
		return err
	})
	return kept, err
}
