package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// The clock is the server's: replicas may go apart.
	claimCarried = `INSERT INTO carried (receiver, seq, holder, until) VALUES ($1, 0, $2, now() + $3 * interval '1 second')
		ON CONFLICT (receiver) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE carried.holder = excluded.holder OR carried.until < now()
		RETURNING seq`
	carry = "UPDATE carried SET seq = $3 WHERE receiver = $1 AND holder = $2 AND seq < $3"
)

// Claim returns up to which entry a receiver has the log, and whether no other replica hands it on.
func (s *Store) Claim(ctx context.Context, receiver, holder string, lease time.Duration) (seq int64, mine bool, err error) {
	err = s.writer.QueryRow(ctx, claimCarried, receiver, holder, lease.Seconds()).Scan(&seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("claim receiver %s: %w", receiver, said(err))
	}
	return seq, true, nil
}

// Carry says up to which entry it has it now, if no other replica has taken that over.
func (s *Store) Carry(ctx context.Context, receiver, holder string, seq int64) error {
	if _, err := s.writer.Exec(ctx, carry, receiver, holder, seq); err != nil {
		return fmt.Errorf("store how much receiver %s has: %w", receiver, said(err))
	}
	return nil
}
