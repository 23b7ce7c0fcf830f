package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"supportaccess.dev/operator/internal/audit"
)

// pageful is how many lines are read at once.
const pageful = 500

// Lines returns entries in their order.
func (s *Store) Lines(ctx context.Context, from, to int64) ([]audit.Line, error) {
	return s.lines(ctx, "SELECT seq, line FROM entries WHERE seq BETWEEN $1 AND $2 ORDER BY seq LIMIT $3", from, to, pageful)
}

func (s *Store) lines(ctx context.Context, query string, args ...any) ([]audit.Line, error) {
	rows, err := s.reader.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("select entries: %w", said(err))
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[audit.Line])
	if err != nil {
		return nil, fmt.Errorf("read entries: %w", said(err))
	}
	return found, nil
}

// Checkpoints returns those that are kept.
func (s *Store) Checkpoints(ctx context.Context, from, to int64) ([]audit.Milestone, error) {
	rows, err := s.reader.Query(ctx, "SELECT size, checkpoint FROM checkpoints WHERE size BETWEEN $1 AND $2 ORDER BY size", from, to)
	if err != nil {
		return nil, fmt.Errorf("select checkpoints: %w", said(err))
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[audit.Milestone])
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", said(err))
	}
	return found, nil
}

// Find returns the entries that a query asks for, the newest first.
func (s *Store) Find(ctx context.Context, q audit.Query) (audit.Page, error) {
	q.Limit = min(max(q.Limit, 0), pageful)
	if q.Limit == 0 {
		q.Limit = pageful
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
// this was given up, and so far the clocks of replicas may be apart.
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
		first, err := s.seqAt(ctx, "SELECT seq FROM facets WHERE time >= $1 ORDER BY time, seq LIMIT 1", q.From.Add(-disorder))
		if err != nil {
			return err
		}
		if first == 0 {
			first = 1 << 62
		}
		q.Above = max(q.Above, first-1)
	}
	if !q.To.IsZero() {
		first, err := s.seqAt(ctx, "SELECT seq FROM facets WHERE time > $1 ORDER BY time, seq LIMIT 1", q.To.Add(disorder))
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
	err := s.reader.QueryRow(ctx, query, instant.UnixMicro()).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("select the entry of %s: %w", instant, said(err))
	}
	return seq, nil
}

// clauses are the conditions of a SELECT, and the values in their places.
type clauses struct {
	where []string
	args  []any
}

// add adds a condition, in which %s is where the value goes.
func (c *clauses) add(condition string, value any) {
	c.args = append(c.args, value)
	c.where = append(c.where, fmt.Sprintf(condition, fmt.Sprintf("$%d", len(c.args))))
}

// numbers returns the SELECT of the numbers that some more conditions leave, the newest first.
func (c *clauses) numbers(limit int, more ...string) string {
	where := strings.Join(append(more, c.where...), " AND ")
	if where != "" {
		where = " WHERE " + where
	}
	return fmt.Sprintf("SELECT seq FROM facets%s ORDER BY seq DESC LIMIT %d", where, limit)
}

// statement returns the SELECT for a query.
func statement(q audit.Query) (string, []any) {
	c := conditions(q)
	found := c.numbers(q.Limit)
	if q.Namespace != "" {
		// Two sorted lists that are merged, where OR would have all of both be read.
		c.args = append(c.args, word(q.Namespace))
		place := fmt.Sprintf("$%d", len(c.args))
		found = fmt.Sprintf("(%s) UNION ALL (%s) ORDER BY seq DESC LIMIT %d",
			c.numbers(q.Limit, "namespace = "+place), c.numbers(q.Limit, "granted_from = "+place, "granted_from <> ''"), q.Limit)
	}
	return "SELECT e.seq, e.line FROM (" + found + ") f JOIN entries e ON e.seq = f.seq ORDER BY e.seq DESC", c.args
}

// conditions returns what a query asks for but the namespace.
func conditions(q audit.Query) *clauses {
	c := &clauses{}
	asked := audit.Facets{
		Type: q.Type, Source: q.Source, Grant: q.Grant, Engineer: q.Engineer, Case: q.Case,
		// The same as the grant's: where it was granted from is not asked for here.
		Namespace: q.Grant.Namespace, Verb: q.Verb, Resource: q.Resource, Section: q.Section, Outcome: q.Outcome, Recording: q.Recording,
	}
	for _, column := range columns {
		if value := column.of(&asked); value != "" && column.name != "namespace" {
			c.add(column.name+" = %s", word(value))
		}
	}
	if q.SkipsPieces() {
		c.add("type <> %s", string(audit.TypeRecording))
	}
	if q.Recording != "" {
		// The index has those alone that have one.
		c.where = append(c.where, "recording <> ''")
	}
	if q.Text != "" {
		c.add("strpos(text, %s) > 0", text(q.Text))
	}
	// Not by the index of times: the numbers say already where to look.
	if !q.From.IsZero() {
		c.add("time + 0 >= %s", q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		c.add("time + 0 < %s", q.To.UnixMicro())
	}
	if q.Above > 0 {
		c.add("seq > %s", q.Above)
	}
	if q.Below > 0 {
		c.add("seq < %s", q.Below)
	}
	return c
}

var _ interface {
	audit.Store
	audit.Reader
} = (*Store)(nil)
