package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

// schema is where the tables are. A database has one log.
const schema = "support_access_audit"

//go:embed migrations/*.sql
var embedded embed.FS

// steps returns what makes the tables, from nothing to what this version knows. A step that was released is never changed.
// Replicas of the version before may still be running: it takes nothing away that they need.
func steps() ([]string, error) {
	names, err := fs.Glob(embedded, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		content, err := fs.ReadFile(embedded, name)
		if err != nil {
			return nil, err
		}
		all = append(all, string(content))
	}
	return all, nil
}

// What only one does at a time, whichever replica it is: numbers for advisory locks, "sala" and one more.
const (
	turnLock = iota + 0x73616c61<<8
	sweepLock
	migrationLock
)

// migrate brings the tables to where the steps lead, all or nothing. Replicas that begin together do it one after another.
func migrate(ctx context.Context, conn *pgx.Conn, steps []string) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return fmt.Errorf("wait for another replica: %w", err)
		}
		made, err := versionOf(ctx, tx)
		switch {
		case err != nil:
			return err
		case made > len(steps):
			return later(made, len(steps))
		case made == none:
			if made, err = 0, makeSchema(ctx, tx); err != nil {
				return err
			}
		}
		for ; made < len(steps); made++ {
			if _, err := tx.Exec(ctx, steps[made], pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("make the tables of version %d: %w", made+1, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO migrations (version) VALUES ($1)", made+1); err != nil {
				return fmt.Errorf("put down that the tables are of version %d: %w", made+1, err)
			}
		}
		return nil
	})
}

// none is the version of a database in which there is no log.
const none = -1

func later(made, known int) error {
	return fmt.Errorf("a later version has written it: its tables are of version %d, known is %d", made, known)
}

// versionOf returns of which version the tables are. What is not a log is an error.
func versionOf(ctx context.Context, tx pgx.Tx) (int, error) {
	var ours bool
	var others int
	err := tx.QueryRow(ctx, `SELECT to_regclass('`+schema+`.migrations') IS NOT NULL,
		(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('`+schema+`'))`).Scan(&ours, &others)
	switch {
	case err != nil:
		return none, fmt.Errorf("look for the tables: %w", err)
	case !ours && others > 0:
		return none, errors.New("the schema " + schema + " is something else's")
	case !ours:
		return none, nil
	}
	var made int
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM migrations").Scan(&made); err != nil {
		return none, fmt.Errorf("read of which version the tables are: %w", err)
	}
	return made, nil
}

// makeSchema makes the schema, unless somebody with the right to has made it for us.
func makeSchema(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `DO $$ BEGIN
		IF to_regnamespace('`+schema+`') IS NULL THEN CREATE SCHEMA `+schema+`; END IF;
		CREATE TABLE `+schema+`.migrations (version int PRIMARY KEY, made timestamptz NOT NULL DEFAULT now());
		END $$`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("make the schema %s: %w", schema, err)
	}
	return nil
}
