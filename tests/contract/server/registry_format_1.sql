BEGIN TRANSACTION;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "blobs" VALUES('sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',100);
CREATE TABLE children (
  repository INTEGER NOT NULL, parent TEXT NOT NULL, child TEXT NOT NULL,
  PRIMARY KEY (repository, parent, child)) WITHOUT ROWID;
INSERT INTO "children" VALUES(1,'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
CREATE TABLE documents (digest TEXT PRIMARY KEY, raw BLOB NOT NULL);
INSERT INTO "documents" VALUES('sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',X'7B226D223A317D');
CREATE TABLE links (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, linked REAL NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
INSERT INTO "links" VALUES(1,'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1000.0);
INSERT INTO "links" VALUES(2,'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1000.0);
CREATE TABLE manifests (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
  subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
  size INTEGER NOT NULL, depth INTEGER NOT NULL, pushed REAL NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
INSERT INTO "manifests" VALUES(1,'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','application/vnd.oci.image.manifest.v1+json','','','{}',7,1,1000.0);
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO "repositories" VALUES(1,'a');
INSERT INTO "repositories" VALUES(2,'b');
CREATE TABLE tags (
  repository INTEGER NOT NULL, folded TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
  updated REAL NOT NULL, PRIMARY KEY (repository, folded, tag)) WITHOUT ROWID;
INSERT INTO "tags" VALUES(1,'latest','latest','sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1000.0);
CREATE INDEX links_by_digest ON links (digest);
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject != '';
CREATE INDEX children_by_child ON children (repository, child);
CREATE INDEX tags_by_digest ON tags (repository, digest);
COMMIT;
PRAGMA user_version=1;
