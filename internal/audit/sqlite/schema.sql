-- What is proof: the lines, to the byte, with the hashes of the tree that came with each.
CREATE TABLE entries (
  seq    INTEGER PRIMARY KEY,
  line   BLOB NOT NULL,
  hashes BLOB NOT NULL
) STRICT;

-- How the log stands: one row.
CREATE TABLE standing (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  size       INTEGER NOT NULL,
  last       BLOB NOT NULL,
  edge       BLOB NOT NULL,
  checkpoint TEXT NOT NULL,
  keys       TEXT NOT NULL
) STRICT;

-- Checkpoints that are kept, one for every few hundred entries.
CREATE TABLE checkpoints (
  size       INTEGER PRIMARY KEY,
  checkpoint TEXT NOT NULL
) STRICT;

-- What entries that were removed have left: at most one row.
CREATE TABLE stub (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  through    INTEGER NOT NULL,
  last       BLOB NOT NULL,
  edge       BLOB NOT NULL,
  checkpoint TEXT NOT NULL
) STRICT;

-- These stop an accident, and nobody who means it: the chain, the tree and a checkpoint elsewhere tell of that.
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN SELECT raise(ABORT, 'an entry of the audit log is never changed'); END;
CREATE TRIGGER entries_leave_with_a_stub BEFORE DELETE ON entries
WHEN old.seq > coalesce((SELECT through FROM stub), 0)
BEGIN SELECT raise(ABORT, 'an entry of the audit log is removed by retention alone'); END;
CREATE TRIGGER checkpoints_are_not_changed BEFORE UPDATE ON checkpoints
BEGIN SELECT raise(ABORT, 'a checkpoint of the audit log is never changed'); END;
CREATE TRIGGER checkpoints_leave_with_a_stub BEFORE DELETE ON checkpoints
WHEN old.size > coalesce((SELECT through FROM stub), 0)
BEGIN SELECT raise(ABORT, 'a checkpoint of the audit log is removed by retention alone'); END;
CREATE TRIGGER the_log_goes_forward BEFORE UPDATE ON standing
WHEN new.size <= old.size
BEGIN SELECT raise(ABORT, 'the audit log goes forward'); END;
CREATE TRIGGER the_log_stays BEFORE DELETE ON standing
BEGIN SELECT raise(ABORT, 'the audit log goes forward'); END;
CREATE TRIGGER the_stub_goes_forward BEFORE UPDATE ON stub
WHEN new.through <= old.through
BEGIN SELECT raise(ABORT, 'what was removed from the audit log does not come back'); END;
CREATE TRIGGER the_stub_stays BEFORE DELETE ON stub
BEGIN SELECT raise(ABORT, 'what was removed from the audit log does not come back'); END;
