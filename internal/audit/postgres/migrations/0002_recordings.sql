-- The number of the request whose stream an entry is of, or ends; few have it.
ALTER TABLE facets ADD COLUMN recording text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX facets_recording ON facets (recording, seq) WHERE recording <> '';
