package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"supportaccess.dev/operator/internal/audit"
)

// reading is how many lines are read at once.
const reading = 500

// Lines returns entries in their order.
func (s *Store) Lines(ctx context.Context, from, to int64) ([]audit.Line, error) {
	return s.lines(ctx, "SELECT seq, line FROM entries WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?", from, to, reading)
}

func (s *Store) lines(ctx context.Context, query string, args ...any) ([]audit.Line, error) {
	rows, err := s.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("select entries: %w", err)
	}
	var found []audit.Line
	for rows.Next() {
		line := audit.Line{}
		if err := rows.Scan(&line.Seq, &line.Text); err != nil {
			return nil, errors.Join(fmt.Errorf("read an entry: %w", err), rows.Close())
		}
		found = append(found, line)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	return found, nil
}

// Checkpoints returns those that are kept.
func (s *Store) Checkpoints(ctx context.Context, from, to int64) ([]audit.Milestone, error) {
	rows, err := s.reader.QueryContext(ctx, "SELECT size, checkpoint FROM checkpoints WHERE size BETWEEN ? AND ? ORDER BY size", from, to)
	if err != nil {
		return nil, fmt.Errorf("select checkpoints: %w", err)
	}
	var found []audit.Milestone
	for rows.Next() {
		kept := audit.Milestone{}
		if err := rows.Scan(&kept.Size, &kept.Checkpoint); err != nil {
			return nil, errors.Join(fmt.Errorf("read a checkpoint: %w", err), rows.Close())
		}
		found = append(found, kept)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return found, nil
}

// Find returns the entries that a query asks for, the newest first: those that the index does not have yet are read through.
func (s *Store) Find(ctx context.Context, q audit.Query) (audit.Page, error) {
	q = q.Legible()
	q.Limit = min(max(q.Limit, 0), reading)
	if q.Limit == 0 {
		q.Limit = reading
	}
	stub, err := s.Stub(ctx)
	if err != nil {
		return audit.Page{}, err
	}
	if stub != nil {
		// What a crash has left of what was removed is nobody's to see.
		q.Above = max(q.Above, stub.Through)
	}
	through, indexed, err := s.index.find(ctx, q)
	if err != nil {
		return audit.Page{}, err
	}
	found, err := s.lookThrough(ctx, q, through)
	if err != nil {
		return audit.Page{}, err
	}
	page := audit.Page{Lines: found}
	indexed = indexed[:min(len(indexed), q.Limit-len(found))]
	if len(found)+len(indexed) == q.Limit {
		page.Next = slices.Concat(numbers(found), indexed)[q.Limit-1]
	}
	rest, err := s.numbered(ctx, indexed)
	if err != nil {
		return audit.Page{}, err
	}
	page.Lines = append(page.Lines, rest...)
	return page, nil
}

func numbers(lines []audit.Line) []int64 {
	numbers := make([]int64, len(lines))
	for i, line := range lines {
		numbers[i] = line.Seq
	}
	return numbers
}

// numbered returns the entries with some numbers, the newest first.
func (s *Store) numbered(ctx context.Context, seqs []int64) ([]audit.Line, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	args := make([]any, len(seqs))
	for i, seq := range seqs {
		args[i] = seq
	}
	places := strings.TrimSuffix(strings.Repeat("?,", len(seqs)), ",")
	return s.lines(ctx, "SELECT seq, line FROM entries WHERE seq IN ("+places+") ORDER BY seq DESC", args...)
}

// lookThrough returns the entries after some number that a query asks for, the newest first.
func (s *Store) lookThrough(ctx context.Context, q audit.Query, after int64) ([]audit.Line, error) {
	var found []audit.Line
	after = max(after, q.Above)
	below := cmp.Or(q.Below, math.MaxInt64)
	for {
		lines, err := s.lines(ctx, "SELECT seq, line FROM entries WHERE seq > ? AND seq < ? ORDER BY seq DESC LIMIT ?", after, below, reading)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if f := facetsOf(line); q.Matches(f) {
				found = append(found, line)
			}
			if len(found) == q.Limit {
				return found, nil
			}
		}
		if len(lines) < reading {
			return found, nil
		}
		below = lines[len(lines)-1].Seq
	}
}

// Before returns the number of the last entry before which all are older than an instant.
func (s *Store) Before(ctx context.Context, instant time.Time) (int64, error) {
	stub, err := s.Stub(ctx)
	if err != nil {
		return 0, err
	}
	older := int64(0)
	if stub != nil {
		older = stub.Through
	}
	began := older
	through, younger, err := s.index.since(ctx, older, instant)
	if err != nil {
		return 0, err
	}
	if older = max(older, through); younger > 0 {
		older = younger - 1
	} else if older, err = s.allOlder(ctx, older, instant); err != nil {
		return 0, err
	}
	if older == began {
		return 0, nil
	}
	return older, nil
}

// allOlder goes on from an entry as long as the next is older than an instant, and returns the number of the last.
func (s *Store) allOlder(ctx context.Context, seq int64, instant time.Time) (int64, error) {
	for {
		lines, err := s.lines(ctx, "SELECT seq, line FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", seq, reading)
		if err != nil || len(lines) == 0 {
			return seq, err
		}
		for _, line := range lines {
			if !facetsOf(line).Time.Before(instant) {
				return seq, nil
			}
			seq = line.Seq
		}
	}
}

// since returns through which entry there is an index, and the number of the first entry after some other that is not older
// than an instant; 0 if there is none.
func (x *index) since(ctx context.Context, after int64, instant time.Time) (through, younger int64, err error) {
	if x == nil {
		return 0, 0, nil
	}
	var first sql.NullInt64
	err = x.reader.QueryRowContext(ctx, `SELECT coalesce((SELECT through FROM progress), 0),
		(SELECT seq FROM facets WHERE +time >= ? AND seq > ? ORDER BY seq LIMIT 1)`, instant.UnixMicro(), after).Scan(&through, &first)
	if err != nil {
		return 0, 0, fmt.Errorf("ask the index for the first entry since %s: %w", instant, err)
	}
	return through, first.Int64, nil
}

// find returns through which entry there is an index, and the numbers of the entries up to that one that a query asks for, the
// newest first.
func (x *index) find(ctx context.Context, q audit.Query) (through int64, seqs []int64, err error) {
	if x == nil {
		return 0, nil, nil
	}
	// All of one moment: what comes into the index meanwhile is read through.
	tx, err := x.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, nil, fmt.Errorf("read the index: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if through, _, err = progress(ctx, tx); err != nil {
		return 0, nil, err
	}
	if err := between(ctx, tx, &q); err != nil {
		return 0, nil, err
	}
	where, args := conditions(q)
	if letters := lettersOf(q.Text); letters != "" {
		rare, err := isRare(ctx, tx, letters)
		if err != nil {
			return 0, nil, err
		}
		if rare {
			where, args = append(where, "seq IN (SELECT rowid FROM letters WHERE letters MATCH ?)"), append(args, letters)
		}
	}
	query, args := statement(q, where, args)
	seqs, err = seqsOf(ctx, tx, query, args)
	return through, seqs, err
}

func seqsOf(ctx context.Context, tx querier, query string, args []any) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("ask the index: %w", err)
	}
	var seqs []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, errors.Join(fmt.Errorf("read the index: %w", err), rows.Close())
		}
		seqs = append(seqs, seq)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return seqs, nil
}

// disorder is how far the times of entries may be out of the order of their numbers: what waits for the log longer than
// this was given up.
const disorder = time.Minute

// between narrows the numbers to those that the time allows: entries are found by number much sooner than by time.
func between(ctx context.Context, tx querier, q *audit.Query) error {
	if !q.From.IsZero() {
		first, err := seqAt(ctx, tx, "SELECT seq FROM facets WHERE time >= ? ORDER BY time, seq LIMIT 1", q.From.Add(-disorder))
		if err != nil {
			return err
		}
		if first == 0 {
			first = 1 << 62
		}
		q.Above = max(q.Above, first-1)
	}
	if !q.To.IsZero() {
		first, err := seqAt(ctx, tx, "SELECT seq FROM facets WHERE time > ? ORDER BY time, seq LIMIT 1", q.To.Add(disorder))
		if err != nil {
			return err
		}
		if first > 0 && (q.Below == 0 || first < q.Below) {
			q.Below = first
		}
	}
	return nil
}

func seqAt(ctx context.Context, tx querier, query string, instant time.Time) (int64, error) {
	var seq int64
	err := tx.QueryRowContext(ctx, query, instant.UnixMicro()).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("select the entry of %s: %w", instant, err)
	}
	return seq, nil
}

const (
	// together is how many letters are known by which a text is found.
	together = 3
	// mostLetters is how many threes of letters are asked for: more would not make fewer entries of it.
	mostLetters = 24
	// rare is how often a text may occur at most that is found by its letters. One that occurs more often is soon met by
	// whoever goes through the entries.
	rare = 2000
)

// lettersOf returns how the index is asked for what has all the letters of a text, three by three; empty for a text that has
// fewer.
func lettersOf(text string) string {
	letters := []rune(strings.ToLower(text))
	var asked []string
	for i := 0; i+together <= len(letters) && len(asked) < mostLetters; i++ {
		three := string(letters[i : i+together])
		// A question to the index ends with a zero byte.
		if !strings.Contains(three, "\x00") {
			asked = append(asked, `"`+strings.ReplaceAll(three, `"`, `""`)+`"`)
		}
	}
	return strings.Join(asked, " AND ")
}

func isRare(ctx context.Context, tx querier, letters string) (bool, error) {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT rowid FROM letters WHERE letters MATCH ? LIMIT ?)", letters, rare).Scan(&n); err != nil {
		return false, fmt.Errorf("ask the index for letters: %w", err)
	}
	return n < rare, nil
}

// statement returns the SELECT for a query whose other conditions are known.
func statement(q audit.Query, where []string, args []any) (string, []any) {
	if q.Namespace == "" {
		return "SELECT seq FROM facets" + joined(where) + " ORDER BY seq DESC LIMIT ?", append(args, q.Limit)
	}
	// Two sorted lists that are merged, where OR would have all of both be read.
	there := joined(append([]string{"namespace = ?"}, where...))
	granted := joined(append([]string{"granted_from = ?", "granted_from <> ''"}, where...))
	all := append([]any{q.Namespace}, args...)
	all = append(append(all, q.Namespace), args...)
	return "SELECT seq FROM facets" + there + " UNION ALL SELECT seq FROM facets" + granted + " ORDER BY seq DESC LIMIT ?", append(all, q.Limit)
}

func joined(conditions []string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

// conditions returns what a query asks for but the namespace.
func conditions(q audit.Query) ([]string, []any) {
	var where []string
	var args []any
	for _, equal := range []struct{ column, value string }{
		{"type", string(q.Type)},
		{"source", q.Source},
		{"grant_uid", q.Grant.UID},
		{"grant_namespace", q.Grant.Namespace},
		{"grant_name", q.Grant.Name},
		{"engineer", q.Engineer},
		{"case_id", q.Case},
		{"verb", q.Verb},
		{"resource", q.Resource},
		{"section", string(q.Section)},
		{"outcome", string(q.Outcome)},
		{"recording", q.Recording},
	} {
		if equal.value != "" {
			where, args = append(where, equal.column+" = ?"), append(args, equal.value)
		}
	}
	if q.SkipsPieces() {
		where, args = append(where, "type <> ?"), append(args, string(audit.TypeRecording))
	}
	if q.Text != "" {
		where, args = append(where, "instr(text, ?) > 0"), append(args, strings.ToLower(q.Text))
	}
	for _, bound := range []struct {
		condition string
		value     int64
		set       bool
	}{
		{"+time >= ?", q.From.UnixMicro(), !q.From.IsZero()},
		{"+time < ?", q.To.UnixMicro(), !q.To.IsZero()},
		{"seq > ?", q.Above, q.Above > 0},
		{"seq < ?", q.Below, q.Below > 0},
	} {
		if bound.set {
			where, args = append(where, bound.condition), append(args, bound.value)
		}
	}
	return where, args
}

var _ interface {
	audit.Store
	audit.Reader
} = (*Store)(nil)
