# SPDX-License-Identifier: Apache-2.0
"""Uploads as files that outlive the process: `uploads/<id>/session.json` and `data`.

The offset of a session is the size of its file, so there is nothing to keep in step. Its digest is
computed while it is written and kept in memory between requests; after a restart it is computed
from the file when the upload is committed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from contextlib import suppress

from lamina.errors import LaminaError
from lamina.server.wire import Refusal
from lamina.spec.document import dump, parse_object
from lamina.store.faults import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from lamina.spec.digest import Digest

    class _Hash(Protocol):
        def update(self, data: bytes, /) -> None: ...
        def hexdigest(self) -> str: ...

    class Adopter(Protocol):
        """Who makes a finished file a blob."""

        def adopt(self, path: str, *, repository: str, digest: Digest, size: int) -> None: ...


_READ = 1 << 20  # bytes hashed at a time after a restart


class FilesystemUploads:
    """The sessions below `directory`."""

    def __init__(self, directory: str, *, blobs: Adopter, limit: int) -> None:
        self._directory = directory
        self._blobs = blobs
        self._limit = limit
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._hashes: dict[str, tuple[str, int, _Hash]] = {}  # id: (algorithm, bytes hashed, hash)
        self._count = len(os.listdir(directory))

    def start(
        self, repository: str, *, user: str, algorithm: str = "sha256"
    ) -> FilesystemUploadSession:
        with self._guard:
            if self._count >= self._limit:
                raise Refusal("TOOMANYREQUESTS", "too many uploads are open", headers=_RETRY)
            self._count += 1
            id = secrets.token_urlsafe(32)
            self._held.add(id)
        place = os.path.join(self._directory, id)
        os.mkdir(place, 0o700)
        document = {"repository": repository, "user": user, "algorithm": algorithm}
        with open(os.path.join(place, "session.json"), "wb") as file:
            file.write(dump(document))
        self._hashes[id] = (algorithm, 0, hashlib.new(algorithm))
        return FilesystemUploadSession(self, id, repository=repository)

    def open(self, repository: str, id: str, *, user: str) -> FilesystemUploadSession:
        self._check(repository, id, user=user)
        with self._guard:
            if id in self._held:
                raise Refusal(
                    "TOOMANYREQUESTS", "another request writes to this upload", headers=_RETRY
                )
            self._held.add(id)
        try:
            return FilesystemUploadSession(self, id, repository=repository)
        except BaseException as error:
            self.let_go(id)
            if isinstance(error, FileNotFoundError):  # committed or expired since it was checked
                raise Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload") from error
            raise

    def offset(self, repository: str, id: str, *, user: str) -> int:
        self._check(repository, id, user=user)
        try:
            return os.stat(os.path.join(self._directory, id, "data")).st_size
        except FileNotFoundError:
            return 0

    def expired(self, before: float) -> Iterator[str]:
        """Ids of sessions without a write since `before` that nobody holds."""
        for id in os.listdir(self._directory):
            place = os.path.join(self._directory, id)
            last = 0.0
            with suppress(FileNotFoundError):
                last = os.stat(place).st_mtime
                last = max(last, os.stat(os.path.join(place, "data")).st_mtime)
            if last < before and id not in self._held:
                yield id

    def discard(self, id: str) -> None:
        """Remove a session's files. Idempotent."""
        place = os.path.join(self._directory, id)
        with self._guard:
            self._hashes.pop(id, None)
            if os.path.isdir(place):
                self._count -= 1
        shutil.rmtree(place, ignore_errors=True)

    def let_go(self, id: str) -> None:
        """The request that held the session has ended."""
        with self._guard:
            self._held.discard(id)

    def _check(self, repository: str, id: str, *, user: str) -> None:
        """Raise Refusal unless the session is this user's in this repository."""
        try:
            with open(os.path.join(self._directory, id, "session.json"), "rb") as file:
                document = parse_object(file.read(4096), what="upload session")
        except (FileNotFoundError, LaminaError) as error:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload") from error
        if document.get("repository") != repository or document.get("user") != user:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload")


class FilesystemUploadSession:
    """One session while a request holds it."""

    def __init__(self, uploads: FilesystemUploads, id: str, *, repository: str) -> None:
        self.id = id
        self._uploads = uploads
        self._repository = repository
        self._place = os.path.join(uploads._directory, id)
        self._path = os.path.join(self._place, "data")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.offset = os.lseek(self._file, 0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        self._unshare()
        view = memoryview(data)
        start = self.offset
        try:
            while view:
                written = os.write(self._file, view)
                self.offset += written
                view = view[written:]
        except OSError as error:
            raise disk_error(error, "cannot write an upload") from error
        known = self._uploads._hashes.get(self.id)
        if known is not None and known[1] == start:
            known[2].update(data)
            self._uploads._hashes[self.id] = (known[0], self.offset, known[2])

    def cut(self, offset: int) -> None:
        self._unshare()
        os.ftruncate(self._file, offset)
        os.lseek(self._file, offset, os.SEEK_SET)
        self.offset = offset
        self._uploads._hashes.pop(self.id, None)

    def commit(self, digest: Digest) -> None:
        found = self._digest(digest.algorithm)
        if found != digest.hex:
            self.cancel()
            raise Refusal(
                "DIGEST_INVALID",
                "the digest of the upload is not the digest that was given",
                detail={"digest": str(digest), "found": f"{digest.algorithm}:{found}"},
            )
        os.fsync(self._file)
        try:
            self._uploads._blobs.adopt(
                self._path, repository=self._repository, digest=digest, size=self.offset
            )
        except Refusal:  # the quota: the bytes would only wait for their expiry
            self.cancel()
            raise
        self.cancel()

    def cancel(self) -> None:
        self._uploads.discard(self.id)
        self.release()

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._uploads.let_go(self.id)

    def reader(self) -> int:
        """A new descriptor of the bytes, good for `pread` also after the session has ended."""
        return os.dup(self._file)

    def _unshare(self) -> None:
        """Copy the bytes if they are a blob too: a crash came between the two of `commit`."""
        if os.fstat(self._file).st_nlink < 2:
            return
        copy = f"{self._path}.copy"
        target = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        position = 0
        try:
            while data := os.pread(self._file, _READ, position):
                position += os.write(target, data)
            os.rename(copy, self._path)
        except BaseException:
            os.close(target)
            raise
        os.close(self._file)
        self._file = target

    def _digest(self, algorithm: str) -> str:
        known = self._uploads._hashes.get(self.id)
        if known is not None and known[0] == algorithm and known[1] == self.offset:
            return known[2].hexdigest()
        found = hashlib.new(algorithm)
        position = 0
        while position < self.offset:
            data = os.pread(self._file, _READ, position)
            if not data:
                break
            found.update(data)
            position += len(data)
        return found.hexdigest()


_RETRY = (("retry-after", "1"),)
