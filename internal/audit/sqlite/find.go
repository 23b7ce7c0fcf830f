package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// Find returns the entries that a query asks for, the newest first.
func (s *Store) Find(ctx context.Context, q audit.Query) (audit.Page, error) {
	q.Limit = min(max(q.Limit, 0), reading)
	if q.Limit == 0 {
		q.Limit = reading
	}
	if err := s.between(ctx, &q); err != nil {
		return audit.Page{}, err
	}
	query, args := statement(q)
	found, err := s.lines(ctx, query, args...)
	if err != nil {
		return audit.Page{}, err
	}
	page := audit.Page{Lines: found}
	if len(found) == q.Limit {
		page.Next = found[len(found)-1].Seq
	}
	return page, nil
}

// disorder is how far the times of entries may be out of the order of their numbers: what waits for the log longer than
// this was given up.
const disorder = time.Minute

// between narrows the numbers to those that the time allows: entries are found by number much sooner than by time.
func (s *Store) between(ctx context.Context, q *audit.Query) error {
	stub, err := s.Stub(ctx)
	if err != nil {
		return err
	}
	if stub != nil {
		// What a crash has left of what was removed is nobody's to see.
		q.Above = max(q.Above, stub.Through)
	}
	if !q.From.IsZero() {
		first, err := s.seqAt(ctx, "SELECT seq FROM facets WHERE time >= ? ORDER BY time, seq LIMIT 1", q.From.Add(-disorder))
		if err != nil {
			return err
		}
		if first == 0 {
			first = 1 << 62
		}
		q.Above = max(q.Above, first-1)
	}
	if !q.To.IsZero() {
		first, err := s.seqAt(ctx, "SELECT seq FROM facets WHERE time > ? ORDER BY time, seq LIMIT 1", q.To.Add(disorder))
		if err != nil {
			return err
		}
		if first > 0 && (q.Below == 0 || first < q.Below) {
			q.Below = first
		}
	}
	return nil
}

func (s *Store) seqAt(ctx context.Context, query string, instant time.Time) (int64, error) {
	var seq int64
	err := s.reader.QueryRowContext(ctx, query, instant.UnixMicro()).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("select the entry of %s: %w", instant, err)
	}
	return seq, nil
}

// statement returns the SELECT for a query.
func statement(q audit.Query) (string, []any) {
	where, args := conditions(q)
	if q.Namespace == "" {
		return `SELECT e.seq, e.line FROM (SELECT seq FROM facets` + joined(where) + ` ORDER BY seq DESC LIMIT ?) f
			JOIN entries e ON e.seq = f.seq ORDER BY e.seq DESC`, append(args, q.Limit)
	}
	// Two sorted lists that are merged, where OR would have all of both be read.
	there := joined(append([]string{"namespace = ?"}, where...))
	granted := joined(append([]string{"granted_from = ?", "granted_from <> ''"}, where...))
	all := append([]any{q.Namespace}, args...)
	all = append(append(all, q.Namespace), args...)
	return `SELECT e.seq, e.line FROM (SELECT seq FROM facets` + there + ` UNION ALL SELECT seq FROM facets` + granted + ` ORDER BY seq DESC LIMIT ?) f
		JOIN entries e ON e.seq = f.seq ORDER BY e.seq DESC`, append(all, q.Limit)
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
	} {
		if equal.value != "" {
			where, args = append(where, equal.column+" = ?"), append(args, equal.value)
		}
	}
	if q.Text != "" {
		where, args = append(where, "instr(lower(text), lower(?)) > 0"), append(args, q.Text)
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
