-- How much of the log receivers elsewhere have, and which replica hands it on until when. It proves nothing: who loses it is
-- handed the log again.
CREATE TABLE carried (
  receiver text PRIMARY KEY,
  seq      bigint NOT NULL,
  holder   text NOT NULL,
  until    timestamptz NOT NULL
);
