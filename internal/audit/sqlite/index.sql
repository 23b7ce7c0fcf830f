-- What entries can be found by, in a file of its own: it proves nothing, waits for nobody, and is made again from the lines.
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
  -- The number of the request whose stream it is of, or ends; few entries have it.
  recording       TEXT NOT NULL,
  -- In small letters.
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
CREATE INDEX facets_recording ON facets (recording) WHERE recording <> '';

-- Which entries have three letters in their text, for each three. What has all those of a word may have the word.
CREATE VIRTUAL TABLE letters USING fts5(text, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram case_sensitive 1');

-- Through which entry there is an index, and the hash of its line: one row.
CREATE TABLE progress (
  id      INTEGER PRIMARY KEY CHECK (id = 1),
  through INTEGER NOT NULL,
  last    BLOB NOT NULL
) STRICT;
