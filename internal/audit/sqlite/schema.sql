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

-- What entries can be found by. It proves nothing and could be made again from the lines.
CREATE TABLE facets (
  seq             INTEGER PRIMARY KEY,
  time            INTEGER NOT NULL,
  type            TEXT NOT NULL,
  source          TEXT NOT NULL,
  grant_uid       TEXT NOT NULL,
  grant_namespace TEXT NOT NULL,
  grant_name      TEXT NOT NULL,
  engineer        TEXT NOT NULL,
  case_id         TEXT NOT NULL,
  namespace       TEXT NOT NULL,
  -- The namespace of the grant, where that is another: few entries have it, and who asks for a namespace asks for both.
  granted_from    TEXT NOT NULL,
  verb            TEXT NOT NULL,
  resource        TEXT NOT NULL,
  section         TEXT NOT NULL,
  outcome         TEXT NOT NULL,
  text            TEXT NOT NULL
) STRICT;
CREATE INDEX facets_time ON facets (time);
CREATE INDEX facets_source ON facets (source);
CREATE INDEX facets_grant ON facets (grant_namespace, grant_name);
CREATE INDEX facets_granted_from ON facets (granted_from) WHERE granted_from <> '';
CREATE INDEX facets_engineer ON facets (engineer);
CREATE INDEX facets_case ON facets (case_id);
CREATE INDEX facets_namespace ON facets (namespace);
CREATE INDEX facets_verb ON facets (verb);
CREATE INDEX facets_resource ON facets (resource);
CREATE INDEX facets_section ON facets (section);
CREATE INDEX facets_outcome ON facets (outcome);

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
