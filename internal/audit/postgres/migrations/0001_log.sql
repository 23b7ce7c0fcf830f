-- What is proof: the lines, to the byte, with the hashes of the tree that came with each.
CREATE TABLE entries (
  seq    bigint PRIMARY KEY,
  line   bytea NOT NULL,
  hashes bytea NOT NULL
);

-- How the log stands: one row.
CREATE TABLE standing (
  id         int PRIMARY KEY CHECK (id = 1),
  size       bigint NOT NULL,
  last       bytea NOT NULL,
  edge       bytea NOT NULL,
  checkpoint text NOT NULL,
  keys       text NOT NULL
) WITH (fillfactor = 20);

-- Checkpoints that are kept, one for every few hundred entries.
CREATE TABLE checkpoints (
  size       bigint PRIMARY KEY,
  checkpoint text NOT NULL
);

-- What entries that were removed have left: at most one row.
CREATE TABLE stub (
  id         int PRIMARY KEY CHECK (id = 1),
  through    bigint NOT NULL,
  last       bytea NOT NULL,
  edge       bytea NOT NULL,
  checkpoint text NOT NULL
);

-- What entries can be found by. It proves nothing and could be made again from the lines.
CREATE TABLE facets (
  seq             bigint PRIMARY KEY,
  time            bigint NOT NULL,
  type            text COLLATE "C" NOT NULL,
  source          text COLLATE "C" NOT NULL,
  grant_uid       text COLLATE "C" NOT NULL,
  grant_namespace text COLLATE "C" NOT NULL,
  grant_name      text COLLATE "C" NOT NULL,
  engineer        text COLLATE "C" NOT NULL,
  case_id         text COLLATE "C" NOT NULL,
  namespace       text COLLATE "C" NOT NULL,
  -- The namespace of the grant, where that is another: few entries have it, and who asks for a namespace asks for both.
  granted_from    text COLLATE "C" NOT NULL,
  verb            text COLLATE "C" NOT NULL,
  resource        text COLLATE "C" NOT NULL,
  section         text COLLATE "C" NOT NULL,
  outcome         text COLLATE "C" NOT NULL,
  -- In small letters.
  text            text COLLATE "C" NOT NULL
);
CREATE INDEX facets_time ON facets (time, seq);
CREATE INDEX facets_source ON facets (source, seq);
CREATE INDEX facets_grant ON facets (grant_namespace, grant_name, seq);
CREATE INDEX facets_granted_from ON facets (granted_from, seq) WHERE granted_from <> '';
CREATE INDEX facets_engineer ON facets (engineer, seq);
CREATE INDEX facets_case ON facets (case_id, seq);
CREATE INDEX facets_namespace ON facets (namespace, seq);
CREATE INDEX facets_verb ON facets (verb, seq);
CREATE INDEX facets_resource ON facets (resource, seq);
CREATE INDEX facets_section ON facets (section, seq);
CREATE INDEX facets_outcome ON facets (outcome, seq);

-- These stop an accident, and nobody who means it: the chain, the tree and a checkpoint elsewhere tell of that.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

-- Of a row, the argument says which column is its number.
CREATE FUNCTION refuse_unless_in_the_stub() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (to_jsonb(OLD) ->> TG_ARGV[0])::bigint > coalesce((SELECT through FROM support_access_audit.stub), 0) THEN
    RAISE EXCEPTION '%', TG_ARGV[1];
  END IF;
  RETURN OLD;
END $$;

CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
  FOR EACH ROW EXECUTE FUNCTION refuse('an entry of the audit log is never changed');
CREATE TRIGGER entries_leave_with_a_stub BEFORE DELETE ON entries
  FOR EACH ROW EXECUTE FUNCTION refuse_unless_in_the_stub('seq', 'an entry of the audit log is removed by retention alone');
CREATE TRIGGER entries_stay BEFORE TRUNCATE ON entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('an entry of the audit log is removed by retention alone');
CREATE TRIGGER checkpoints_are_not_changed BEFORE UPDATE ON checkpoints
  FOR EACH ROW EXECUTE FUNCTION refuse('a checkpoint of the audit log is never changed');
CREATE TRIGGER checkpoints_leave_with_a_stub BEFORE DELETE ON checkpoints
  FOR EACH ROW EXECUTE FUNCTION refuse_unless_in_the_stub('size', 'a checkpoint of the audit log is removed by retention alone');
CREATE TRIGGER checkpoints_stay BEFORE TRUNCATE ON checkpoints
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a checkpoint of the audit log is removed by retention alone');
CREATE TRIGGER the_log_goes_forward BEFORE UPDATE ON standing
  FOR EACH ROW WHEN (NEW.size <= OLD.size) EXECUTE FUNCTION refuse('the audit log goes forward');
CREATE TRIGGER the_log_stays BEFORE DELETE ON standing
  FOR EACH ROW EXECUTE FUNCTION refuse('the audit log goes forward');
CREATE TRIGGER the_log_stays_whole BEFORE TRUNCATE ON standing
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the audit log goes forward');
CREATE TRIGGER the_stub_goes_forward BEFORE UPDATE ON stub
  FOR EACH ROW WHEN (NEW.through <= OLD.through) EXECUTE FUNCTION refuse('what was removed from the audit log does not come back');
CREATE TRIGGER the_stub_stays BEFORE DELETE ON stub
  FOR EACH ROW EXECUTE FUNCTION refuse('what was removed from the audit log does not come back');
CREATE TRIGGER the_stub_stays_whole BEFORE TRUNCATE ON stub
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('what was removed from the audit log does not come back');
