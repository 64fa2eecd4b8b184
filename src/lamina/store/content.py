# SPDX-License-Identifier: Apache-2.0
"""Blobs by digest in `blobs/<algorithm>/<hex>`, written aside in `ingest/` first.

An ingest is the file `ingest/<sha256 of its ref>`, locked by flock while it is written. Commit
checks size and digest, makes the file read-only and renames it: a reader sees a whole blob or none.
A blob's mtime is when it was committed, its atime when it was last relied on under a lease (GC
reads that), both by the store's clock.
"""

from __future__ import annotations

import fcntl
import io
import os

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import HEX_LENGTH, Digest
from lamina.start.hashing import Sha256, sha256
from lamina.store.faults import disk_error
from lamina.store.ports import BlobInfo
from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from hashlib import _Hash
    from typing import IO, Self

    from lamina.spec.descriptor import Descriptor
    from lamina.store.durability import Durability
    from lamina.store.leases import Leases

CHUNK = 1024 * 1024  # bytes read at once; above it hashing gets no faster
_NANOSECONDS = 1_000_000_000


class BlobCorrupt(LaminaError):
    """Bytes do not have the digest or size they should have."""

    kind = Kind.INTEGRITY


class BlobNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class Content:
    """The content store of one root (ports.ContentStore)."""

    def __init__(self, root: str, *, durability: Durability, leases: Leases) -> None:
        self._blobs = os.path.join(root, "blobs")
        self._ingests = os.path.join(root, "ingest")
        self._durability = durability
        self._leases = leases
        self._own: set[Digest] = set()  # what this process wrote

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return os.path.join(self._blobs, digest.algorithm, digest.hex)

    def open(self, digest: Digest, *, offset: int = 0) -> IO[bytes]:
        self._leases.touch_blob(self.path(digest))
        file = io.FileIO(self._open(digest), "rb")
        if offset:
            file.seek(offset)
        return io.BufferedReader(file, buffer_size=128 * 1024)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        self._leases.touch_blob(self.path(digest))
        fd = self._open(digest)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise LaminaError(
                    f"blob {digest} has {size} bytes, more than the limit of {limit}",
                    kind=Kind.INVALID,
                )
            data = _read_all(fd, size)
        except OSError as error:
            raise disk_error(error, f"cannot read blob {digest}") from error
        finally:
            os.close(fd)
        if Digest.of(data, algorithm=digest.algorithm) != digest:
            raise _corrupt_on_disk(digest)
        return data

    def exists(self, digest: Digest) -> bool:
        return self._leases.touch_blob(self.path(digest))

    def info(self, digest: Digest) -> BlobInfo:
        path = self.path(digest)
        self._leases.touch_blob(path)
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            raise _not_found(digest) from None
        return BlobInfo(digest, found.st_size, found.st_mtime, digest in self._own)

    def verify(self, digest: Digest) -> None:
        """Hash the blob. Raises kind NOT_FOUND, INTEGRITY."""
        fd = self._open(digest)
        try:
            hasher = _new_hasher(digest.algorithm)
            _hash_file(fd, hasher)
        except OSError as error:
            raise disk_error(error, f"cannot read blob {digest}") from error
        finally:
            os.close(fd)
        if hasher.hexdigest() != digest.hex:
            raise _corrupt_on_disk(digest)

    def ingest(self, ref: str, *, expected: Descriptor | None = None) -> FileIngest:
        path = os.path.join(self._ingests, sha256(ref.encode()).hexdigest())
        lock = FileLock(path)
        try:
            lock.acquire()
        except OSError as error:
            raise disk_error(error, f"cannot begin to write {ref}") from error
        return FileIngest(self, lock, ref=ref, expected=expected)

    def add(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        if self.exists(digest) and self._size(digest) == len(data):
            return digest
        with self.ingest(f"add {digest}") as writing:
            if writing.offset:  # of a process that died; too small to be worth resuming
                writing.restart()
            writing.write(data)
            return writing.commit(digest=digest, size=len(data))

    def walk(self) -> Iterator[BlobInfo]:
        for algorithm in HEX_LENGTH:
            directory = os.path.join(self._blobs, algorithm)
            try:
                entries = os.scandir(directory)
            except FileNotFoundError:
                continue
            with entries:
                yield from self._walk(algorithm, entries)

    def _walk(self, algorithm: str, entries: Iterator[os.DirEntry[str]]) -> Iterator[BlobInfo]:
        for entry in entries:
            try:
                digest = Digest(algorithm, entry.name)
                found = entry.stat(follow_symlinks=False)
            except (LaminaError, FileNotFoundError):  # not a blob's name, or deleted meanwhile
                continue
            yield BlobInfo(digest, found.st_size, found.st_mtime)

    def delete(self, digest: Digest) -> None:
        self._own.discard(digest)
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return
        except OSError as error:
            raise disk_error(error, f"cannot delete blob {digest}") from error

    def publish(self, fd: int, source: str, digest: Digest) -> None:
        """Give the verified ingest file its final name. An equal blob that exists is kept; one of
        another size is torn (a power loss) and is replaced.
        """
        target = self.path(digest)
        size = os.fstat(fd).st_size
        if self.exists(digest) and self._size(digest) == size:
            os.unlink(source)  # which of the two is read is not known to be the one just hashed
            return
        now = int(self._leases.stamp() * _NANOSECONDS)
        os.fchmod(fd, 0o444)
        os.utime(fd, ns=(now, now))
        with self._durability.publishing():
            try:
                os.rename(source, target)
            except FileNotFoundError:  # the first blob of this algorithm
                os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
                os.rename(source, target)
        self._own.add(digest)

    def _size(self, digest: Digest) -> int:
        try:
            return os.stat(self.path(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return -1

    def _open(self, digest: Digest) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return os.open(self.path(digest), flags | os.O_NOATIME)
            except PermissionError:  # not the owner: an image layout mounted from elsewhere
                return os.open(self.path(digest), flags)
        except FileNotFoundError:
            raise _not_found(digest) from None
        except OSError as error:
            raise disk_error(error, f"cannot open blob {digest}") from error


class FileIngest:
    """An ingest on disk (ports.Ingest). It holds the lock from the start to commit or exit."""

    def __init__(
        self, content: Content, lock: FileLock, *, ref: str, expected: Descriptor | None
    ) -> None:
        self._content = content
        self._lock = lock
        self._ref = ref
        self._expected = expected
        self._algorithm = expected.digest.algorithm if expected is not None else "sha256"
        self._hasher = _new_hasher(self._algorithm)
        self.offset = 0
        try:
            self._resume()
        except BaseException:
            lock.release()
            raise

    def _resume(self) -> None:
        """Hash what an earlier process wrote; more than is expected cannot be right."""
        size = os.fstat(self._lock.fd).st_size
        if self._expected is not None and size > self._expected.size:
            self.restart()
            return
        _hash_file(self._lock.fd, self._hasher)
        self.offset = os.lseek(self._lock.fd, 0, os.SEEK_CUR)

    def restart(self) -> None:
        """Throw away what was written and begin again at offset 0, still holding the ingest."""
        os.ftruncate(self._lock.fd, 0)
        os.lseek(self._lock.fd, 0, os.SEEK_SET)
        self._hasher = _new_hasher(self._algorithm)
        self.offset = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.write(self._lock.fd, view)
                self._hasher.update(view[:done])
                self.offset += done
                view = view[done:]
        except OSError as error:
            raise disk_error(error, f"cannot write {self._ref}") from error

    def reader(self) -> IO[bytes]:
        try:
            return open(self._lock.path, "rb", buffering=0)
        except OSError as error:
            raise disk_error(error, f"cannot read {self._ref}") from error

    def digest(self) -> Digest:
        return Digest(self._algorithm, self._hasher.hexdigest())

    def commit(self, *, digest: Digest | None = None, size: int | None = None) -> Digest:
        found = self._digest_in(digest.algorithm if digest is not None else self._algorithm)
        try:
            self._check(found, digest=digest, size=size)
        except LaminaError:
            self.abort()
            raise
        try:
            self._content.publish(self._lock.fd, self._lock.path, found)
        except OSError as error:
            raise disk_error(error, f"cannot commit {self._ref}") from error
        self._lock.release()
        return found

    def _digest_in(self, algorithm: str) -> Digest:
        if algorithm == self._algorithm:
            return self.digest()
        hasher = _new_hasher(algorithm)
        os.lseek(self._lock.fd, 0, os.SEEK_SET)
        _hash_file(self._lock.fd, hasher)
        return Digest(algorithm, hasher.hexdigest())

    def _check(self, found: Digest, *, digest: Digest | None, size: int | None) -> None:
        expected = self._expected
        sizes = {size, expected.size if expected is not None else None} - {None, self.offset}
        if sizes:
            raise BlobCorrupt(f"{self._ref}: {self.offset} bytes instead of {sizes.pop()}")
        if digest is not None and digest != found:
            raise BlobCorrupt(f"{self._ref}: digest is {found} instead of {digest}")
        if expected is not None and expected.digest != found:
            same_algorithm = self._digest_in(expected.digest.algorithm)
            if same_algorithm != expected.digest:
                raise BlobCorrupt(
                    f"{self._ref}: digest is {same_algorithm} instead of {expected.digest}"
                )

    def abort(self) -> None:
        if self._lock.fd < 0:
            return
        os.unlink(self._lock.path)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


def remove_unheld_ingests(directory: str, *, before: float) -> int:
    """Remove the ingests that no process holds; bytes freed. A writer holds its ingest while it waits
    for a transfer that broke, too: what nobody holds is what a process that ended left. Other files
    go if nobody wrote to them since `before`.
    """
    freed = 0
    for entry in list(os.scandir(directory)):
        lock = FileLock(entry.path)
        try:
            if not _is_ingest(entry.name) and entry.stat(follow_symlinks=False).st_mtime >= before:
                continue
            if not _lock_existing(lock):
                continue
        except FileNotFoundError:
            continue
        try:
            freed += os.fstat(lock.fd).st_blocks * 512
            os.unlink(entry.path)
        finally:
            lock.release()
    return freed


def _is_ingest(name: str) -> bool:
    return len(name) == HEX_LENGTH["sha256"]


def _lock_existing(lock: FileLock) -> bool:
    """Lock the file without creating it: an ingest that was committed meanwhile stays gone."""
    fd = os.open(lock.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    lock.fd = fd
    return True


def _new_hasher(algorithm: str) -> _Hash | Sha256:
    if algorithm == "sha256":
        return Sha256()
    import hashlib

    return hashlib.new(algorithm)


def _hash_file(fd: int, hasher: _Hash | Sha256) -> None:
    """Feed the file from its current position to its end."""
    while chunk := os.read(fd, CHUNK):
        hasher.update(chunk)


def _read_all(fd: int, size: int) -> bytes:
    data = os.read(fd, size + 1)
    while chunk := os.read(fd, CHUNK):
        data += chunk
    return data


def _not_found(digest: Digest) -> BlobNotFound:
    return BlobNotFound(f"blob {digest} is not in the store")


def _corrupt_on_disk(digest: Digest) -> BlobCorrupt:
    return BlobCorrupt(
        f"blob {digest} is damaged in the store",
        hint="remove the image and pull or build it again",
    )
