PRAGMA user_version=2;
BEGIN TRANSACTION;
CREATE TABLE cache(
  key TEXT PRIMARY KEY, result TEXT NOT NULL, tree TEXT NOT NULL, name TEXT NOT NULL,
  created REAL NOT NULL, last_used REAL NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "cache" VALUES('sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683','["sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa"]','{"op":"Exec"}','RUN make',1700000000.0,1700000000.0,'77b8d8d2c6457a8d');
CREATE TABLE documents(
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
  created REAL NOT NULL, PRIMARY KEY(kind, id), UNIQUE(kind, name)) WITHOUT ROWID;
INSERT INTO "documents" VALUES('container','1','web','{}',1700000000.0);
CREATE TABLE former_names(
  name TEXT NOT NULL, target TEXT NOT NULL, deleted REAL NOT NULL);
CREATE TABLE layer_blobs(
  diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, blob TEXT NOT NULL,
  PRIMARY KEY(diff_id, digest, media_type)) WITHOUT ROWID;
INSERT INTO "layer_blobs" VALUES('sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa','sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa','application/vnd.oci.image.layer.v1.tar','{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa","size":14}');
CREATE TABLE layers(
  diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "layers" VALUES('sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa',14);
CREATE TABLE names(
  name TEXT PRIMARY KEY, target TEXT NOT NULL, updated REAL NOT NULL) WITHOUT ROWID;
INSERT INTO "names" VALUES('docker.io/library/app:latest','{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:8c1423fbde1157270307590d681cfcfcb64ec946510dcbf657b53f1883a438f8","size":395}',1700000000.0);
CREATE TABLE snapshots(
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL,
  parent TEXT, created REAL NOT NULL, used REAL NOT NULL, boot TEXT NOT NULL,
  form TEXT NOT NULL DEFAULT 'directory');
INSERT INTO "snapshots" VALUES(1,'sha256:8480c9cfa5109cad860f23eec3da8f36ba53f017343bd65fe807e7d7ad9bc7fa',1,NULL,1700000000.0,1700000000.0,'','directory');
CREATE TABLE stat(
  context TEXT PRIMARY KEY, entries BLOB NOT NULL, used REAL NOT NULL);
INSERT INTO "stat" VALUES(X'2F636F6E74657874',X'73746174',1700000000.0);
CREATE TABLE state(
  key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "state" VALUES('generation','1');
INSERT INTO "state" VALUES('index_generation','1');
CREATE INDEX snapshot_children ON snapshots(parent) WHERE parent IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('snapshots',1);
COMMIT;
