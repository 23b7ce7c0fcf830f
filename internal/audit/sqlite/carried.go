package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// carriedTable is made when it is first asked for: a log of an earlier version has none, and whoever reads needs none. It proves
// nothing; who loses it is handed the log again.
const carriedTable = "CREATE TABLE IF NOT EXISTS carried (receiver TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT"

// Claim returns up to which entry a receiver has the log. Nobody else writes to it, so nobody else hands it on.
func (s *Store) Claim(ctx context.Context, receiver, _ string, _ time.Duration) (seq int64, mine bool, err error) {
	if !s.carries.Load() {
		if _, err := s.writer.ExecContext(ctx, carriedTable); err != nil {
			return 0, false, err
		}
		s.carries.Store(true)
	}
	err = s.reader.QueryRowContext(ctx, "SELECT seq FROM carried WHERE receiver = ?", receiver).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, true, nil
	}
	return seq, err == nil, err
}

// Carry says up to which entry it has it now.
func (s *Store) Carry(ctx context.Context, receiver, _ string, seq int64) error {
	_, err := s.writer.ExecContext(ctx, `INSERT INTO carried (receiver, seq) VALUES (?, ?)
		ON CONFLICT (receiver) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq`, receiver, seq)
	return err
}
