"""Tables of the journal. No name of a patient stands in it; UIDs do, for they are what peers ask for."""

from __future__ import annotations

from typing import Final

from edgemed.serve.journal.tally import TALLY

VERSION: Final = 2

DIGESTS: Final = {
    1: "f78bc21b03e617abe148412c1c5ea96889c3a0e0583bb103ed91372db68d9c06",
    2: "53ca9955a3b576f3e0ec066c8d0d76357737a78178501542db034252527b473b",
}
"""SHA-256 of the tables of each version that there was, without comments and spacing. A test holds `SCHEMA` against it:
a journal is opened by its version alone, so tables that changed under the same one would be found at a bedside, by a
statement that fails. Once a version is released, its line stays as it is; other tables get another version.
"""

_TABLES: Final = """
CREATE TABLE object (                 -- something that came in, and was acknowledged or refused
  id            INTEGER PRIMARY KEY,
  inlet         TEXT NOT NULL,        -- 'dicom', 'stow', or the name of a folder
  peer          TEXT NOT NULL,        -- calling AE title, name of the token; '' for folders
  called        TEXT NOT NULL DEFAULT '',
  association   TEXT NOT NULL DEFAULT '',  -- one connection of a peer; '' where there is none
  address       TEXT NOT NULL DEFAULT '',  -- of the peer; '' for folders
  sop_class     TEXT NOT NULL,
  sop_instance  TEXT NOT NULL,
  study         TEXT NOT NULL DEFAULT '',
  series        TEXT NOT NULL DEFAULT '',
  syntax        TEXT NOT NULL DEFAULT '',  -- Transfer Syntax UID
  sha256        TEXT NOT NULL,        -- of the data set as it was sent; of other files, of all bytes
  size          INTEGER NOT NULL,
  path          TEXT NOT NULL,        -- in the spool; '' where nothing was kept, or it was deleted after its time
  received      TEXT NOT NULL,        -- UTC
  repeats       INTEGER NOT NULL DEFAULT 0,  -- times the very same came again
  state         TEXT NOT NULL,
  reason        TEXT NOT NULL DEFAULT '',
  changed       TEXT NOT NULL         -- UTC
) STRICT;
CREATE UNIQUE INDEX object_uid ON object (sop_instance) WHERE state <> 'refused';
CREATE INDEX object_new ON object (state) WHERE state IN ('arriving', 'received');
CREATE INDEX object_study ON object (study, series);
CREATE INDEX object_kept ON object (state) WHERE path <> '';
CREATE INDEX object_association ON object (association) WHERE association <> '';

CREATE TABLE task (                   -- one answer to be given: a model, and the objects it is about
  id            INTEGER PRIMARY KEY,
  model         TEXT NOT NULL,
  level         TEXT NOT NULL,        -- 'instance', 'series', 'study'
  subject       TEXT NOT NULL,        -- UID at that level
  revision      INTEGER NOT NULL DEFAULT 1,  -- the second and later ones are for images that came late
  state         TEXT NOT NULL,
  reason        TEXT NOT NULL DEFAULT '',
  completeness  TEXT NOT NULL DEFAULT '',  -- why it was taken to be complete
  expected      INTEGER,              -- objects that it will have, by what files say; 0 where they disagree
  tries         INTEGER NOT NULL DEFAULT 0,  -- times the analysis was started
  created       TEXT NOT NULL,
  completed     TEXT,                 -- the last image was there, UTC; the deadline counts from here
  digest        TEXT NOT NULL DEFAULT '',  -- of the bundle that answered
  changed       TEXT NOT NULL,
  UNIQUE (model, subject, revision)
) STRICT;
CREATE INDEX task_open ON task (state) WHERE state NOT IN ('delivered', 'not-analysed', 'failed');
CREATE INDEX task_queued ON task (model, completed, id) WHERE state = 'queued';

CREATE TABLE part (                   -- which objects a task is about
  task          INTEGER NOT NULL REFERENCES task (id),
  object        INTEGER NOT NULL REFERENCES object (id),
  PRIMARY KEY (task, object)
) STRICT, WITHOUT ROWID;
CREATE INDEX part_object ON part (object);

CREATE TABLE result (                 -- a file that says what a task found, or why it found nothing
  id            INTEGER PRIMARY KEY,
  task          INTEGER NOT NULL REFERENCES task (id),
  kind          TEXT NOT NULL,        -- 'sr', 'seg', 'sc', 'gsps', 'json', 'image' (an input, sent on)
  sop_class     TEXT NOT NULL DEFAULT '',
  sop_instance  TEXT NOT NULL DEFAULT '',
  sha256        TEXT NOT NULL,
  size          INTEGER NOT NULL,
  path          TEXT NOT NULL,        -- in the spool; '' where it was deleted after its time
  created       TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX result_path ON result (task, path) WHERE path <> '';
CREATE INDEX result_uid ON result (sop_instance);
CREATE INDEX result_task ON result (task);

CREATE TABLE delivery (               -- one result to one destination
  id            INTEGER PRIMARY KEY,
  result        INTEGER NOT NULL REFERENCES result (id),
  destination   TEXT NOT NULL,
  state         TEXT NOT NULL,        -- 'pending', 'sent' (commitment is awaited), 'delivered', 'failed'
  tries         INTEGER NOT NULL DEFAULT 0,
  transaction_uid TEXT NOT NULL DEFAULT '',  -- of the storage commitment that is awaited
  reason        TEXT NOT NULL DEFAULT '',
  created       TEXT NOT NULL,
  changed       TEXT NOT NULL,
  UNIQUE (result, destination)
) STRICT;
CREATE INDEX delivery_open ON delivery (destination, state) WHERE state <> 'delivered';

CREATE TABLE asked (                  -- storage commitment that we asked of a destination; again, where no answer came
  transaction_uid TEXT NOT NULL,
  delivery      INTEGER NOT NULL REFERENCES delivery (id),
  PRIMARY KEY (transaction_uid, delivery)
) STRICT, WITHOUT ROWID;
CREATE INDEX asked_delivery ON asked (delivery);

CREATE TABLE deletion (               -- files that no row names any more, and that are being deleted
  path          TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE event (                  -- everything that happened, in order; never changed, deleted when very old
  id            INTEGER PRIMARY KEY,
  at            TEXT NOT NULL,
  what          TEXT NOT NULL,        -- 'object', 'task', 'delivery', 'commitment', 'step'
  subject       INTEGER NOT NULL,
  before        TEXT NOT NULL,
  event         TEXT NOT NULL,
  after         TEXT NOT NULL,
  reason        TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX event_subject ON event (what, subject);

CREATE TABLE alarm (
  id            INTEGER PRIMARY KEY,
  code          TEXT NOT NULL,
  subject       TEXT NOT NULL DEFAULT '',
  text          TEXT NOT NULL,
  severity      TEXT NOT NULL,        -- 'warning', 'alarm'
  raised        TEXT NOT NULL,
  count         INTEGER NOT NULL DEFAULT 1,
  cleared       TEXT
) STRICT;
CREATE UNIQUE INDEX alarm_standing ON alarm (code, subject) WHERE cleared IS NULL;

CREATE TABLE commitment (             -- asked of us by a peer
  transaction_uid TEXT NOT NULL,
  peer          TEXT NOT NULL,
  address       TEXT NOT NULL,        -- that it asked from: where a report goes to, at the peer's port
  request       TEXT NOT NULL,        -- JSON: [[SOP class, SOP instance], …]
  received      TEXT NOT NULL,
  reported      TEXT,                 -- '' where that was given up
  event         INTEGER NOT NULL,     -- that it was asked: its age
  PRIMARY KEY (transaction_uid, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX commitment_open ON commitment (event) WHERE reported IS NULL;
CREATE INDEX commitment_over ON commitment (event) WHERE reported IS NOT NULL;

CREATE TABLE step (                   -- a performed procedure step (MPPS) that a peer tells of; UIDs alone
  id            INTEGER PRIMARY KEY,
  sop_instance  TEXT NOT NULL UNIQUE,
  peer          TEXT NOT NULL,        -- that has created it: nobody else may change it
  study         TEXT NOT NULL,        -- '' where it is of several
  state         TEXT NOT NULL,        -- 'IN PROGRESS', 'COMPLETED', 'DISCONTINUED'
  images        INTEGER NOT NULL DEFAULT 0,  -- that it names
  created       TEXT NOT NULL,
  changed       TEXT NOT NULL,
  event         INTEGER NOT NULL      -- of its last change: its age
) STRICT;
CREATE INDEX step_study ON step (study);
CREATE INDEX step_event ON step (event);

CREATE TABLE step_series (            -- a series that it has made
  id            INTEGER PRIMARY KEY,
  step          INTEGER NOT NULL REFERENCES step (id) ON DELETE CASCADE,
  series        TEXT NOT NULL,
  UNIQUE (step, series)
) STRICT;
CREATE INDEX step_series_uid ON step_series (series);

CREATE TABLE step_image (             -- an image of it that is to come, or has come
  series        INTEGER NOT NULL REFERENCES step_series (id) ON DELETE CASCADE,
  sop_instance  TEXT NOT NULL,
  PRIMARY KEY (series, sop_instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE promise (                -- what we have committed ourselves to keep; by UID: it outlives the journal
  sop_instance  TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE golden (                 -- history of golden inferences
  id            INTEGER PRIMARY KEY,
  at            TEXT NOT NULL,
  model         TEXT NOT NULL,
  digest        TEXT NOT NULL,
  backend       TEXT NOT NULL,
  passed        INTEGER NOT NULL,
  worst         REAL,                 -- greatest difference over its tolerance
  reason        TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE release (                -- a version of a model at this bedside
  id            INTEGER PRIMARY KEY,
  model         TEXT NOT NULL,
  digest        TEXT NOT NULL,
  path          TEXT NOT NULL,
  sequence      INTEGER,              -- of its signature; NULL where it is unsigned
  older         INTEGER NOT NULL DEFAULT 0,  -- 1: an operator allows it a lower sequence than one that has answered
  state         TEXT NOT NULL,        -- see serve/models/releases.py
  reason        TEXT NOT NULL DEFAULT '',
  created       TEXT NOT NULL,
  changed       TEXT NOT NULL,
  UNIQUE (model, digest)
) STRICT;

CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

SCHEMA: Final = f"{_TABLES}{TALLY}"
