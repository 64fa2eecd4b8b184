# SPDX-License-Identifier: Apache-2.0
"""An OCI image layout on disk as Source and Sink (ports)."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from glob import escape, glob

from lamina.errors import Kind, LaminaError
from lamina.registry.storeend import download
from lamina.spec import mediatype
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index, children
from lamina.start.record import replace
from lamina.system.locks import lock_directory
from lamina.system.process import unique_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from lamina.registry.ports import Report, Source
    from lamina.spec.descriptor import Descriptor
    from lamina.tasks import CancelToken


class LayoutEnd:
    """An OCI image layout directory as Source and Sink (image-spec image-layout.md).

    Blobs are written aside and renamed; `index.json` is the caller's (`set_ref`), last.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, *, beside: tuple[str, ...] = ()) -> None:
        """Make the layout if it is not there; files named `beside` may lie in the new directory.

        Raises:
            LaminaError: CONFLICT if the directory holds something else.
        """
        os.makedirs(self.path, exist_ok=True)
        marker = os.path.join(self.path, "oci-layout")
        if not os.path.exists(marker):
            if set(os.listdir(self.path)) - set(beside):
                raise LaminaError(
                    f"{self.path} is not empty and not an OCI image layout", kind=Kind.CONFLICT
                )
            _replace_file(marker, b'{"imageLayoutVersion":"1.0.0"}')

    def sweep(self, *, before: float) -> None:
        """Remove what killed processes left half-written before that time (POSIX seconds)."""
        for path in glob(os.path.join(escape(self.path), "blobs", "*", "*.new")):
            with suppress(FileNotFoundError):
                if os.stat(path).st_mtime < before:
                    os.unlink(path)

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        try:
            file = open(self._blob(descriptor.digest), "rb")  # noqa: SIM115  # the caller closes it
        except FileNotFoundError as error:
            raise LaminaError(
                f"blob {descriptor.digest} is not in {self.path}", kind=Kind.NOT_FOUND
            ) from error
        file.seek(offset)
        return file

    def document(self, descriptor: Descriptor) -> bytes:
        with self.open(descriptor) as file:
            raw = file.read(MAX_DOCUMENT + 1)
        if (
            len(raw) != descriptor.size
            or Digest.of(raw, algorithm=descriptor.digest.algorithm) != descriptor.digest
        ):
            raise LaminaError(f"{descriptor.digest} in {self.path} is damaged", kind=Kind.INTEGRITY)
        return raw

    def exists(self, descriptor: Descriptor) -> bool:
        try:
            return os.stat(self._blob(descriptor.digest)).st_size == descriptor.size
        except FileNotFoundError:
            return False

    def put(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        target = self._blob(descriptor.digest)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{unique_name()}.new"
        try:
            with open(temporary, "xb") as file:
                writing = _FileIngest(file, descriptor)
                download(writing, descriptor, source, report=report, cancel=cancel)  # type: ignore[arg-type]  # offset, write and abort are what it uses
                writing.verify()
            os.rename(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):  # the disk may not have had room for it
                os.unlink(temporary)
            raise

    def put_document(self, descriptor: Descriptor, raw: bytes) -> None:
        target = self._blob(descriptor.digest)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _replace_file(target, raw)

    def find(self, name: str) -> Descriptor:
        """The entry of `index.json` with that name (empty: the only one there is).

        Raises:
            LaminaError: NOT_FOUND, or INVALID if there are several to choose from.
        """
        entries = self._entries()
        found = [entry for entry in entries if not name or _names(entry) & {name}]
        if len(found) == 1:
            return found[0]
        known = ", ".join(sorted(name for entry in entries for name in _names(entry)))
        if not found:
            raise LaminaError(
                f"{self.path} has no image {name!r}".replace(" ''", ""),
                kind=Kind.NOT_FOUND,
                hint=f"it has: {known}" if known else "",
            )
        raise LaminaError(
            f"{self.path} has several images: say which (oci:DIR:NAME)",
            kind=Kind.INVALID,
            hint=f"it has: {known}",
        )

    def set_ref(self, target: Descriptor, name: str) -> None:
        """Add `target` under `name` to `index.json`, replacing the entry of that name."""
        named = replace(
            target, annotations=(("org.opencontainers.image.ref.name", name),) if name else ()
        )
        kept = [
            entry
            for entry in self._entries()
            if not (name and name in _names(entry)) and entry != named
        ]
        _replace_file(os.path.join(self.path, "index.json"), Index.make([*kept, named]).raw)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A block in which no other process that asks for this writes to the layout."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock_directory(fd, subject=self.path)
            yield
        finally:
            os.close(fd)

    def replace_ref(self, target: Descriptor, name: str) -> None:
        """As `set_ref`; what only the entry of that name needed is removed. Called `locked`."""
        before = [entry for entry in self._entries() if name in _names(entry)]
        self.set_ref(target, name)
        needed: set[Digest] = set()
        for entry in self._entries():
            needed |= self._reachable(entry)
        for entry in before:
            for digest in self._reachable(entry) - needed:
                with suppress(FileNotFoundError):
                    os.unlink(self._blob(digest))

    def _reachable(self, root: Descriptor) -> set[Digest]:
        """What the document needs, as far as it is here and readable."""
        found: set[Digest] = set()
        todo = [root]
        while todo:
            descriptor = todo.pop()
            if descriptor.digest in found:
                continue
            found.add(descriptor.digest)
            if descriptor.media_type in mediatype.MANIFESTS | mediatype.INDEXES:
                with suppress(LaminaError):
                    todo += children(descriptor.media_type, self.document(descriptor))
        return found

    def _entries(self) -> tuple[Descriptor, ...]:
        try:
            with open(os.path.join(self.path, "index.json"), "rb") as file:
                raw = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            if os.path.exists(os.path.join(self.path, "oci-layout")):
                return ()
            raise LaminaError(
                f"{self.path} is not an OCI image layout", kind=Kind.NOT_FOUND
            ) from None
        return Index.parse(raw).manifests

    def _blob(self, digest: Digest) -> str:
        return os.path.join(self.path, "blobs", digest.algorithm, digest.hex)


def _names(entry: Descriptor) -> set[str]:
    keys = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    return {value for key in keys if (value := entry.annotation(key)) is not None}


class _FileIngest:
    """A new file as the ingest that `download` fills."""

    def __init__(self, file: IO[bytes], descriptor: Descriptor) -> None:
        self._file = file
        self._descriptor = descriptor
        self._hasher = hashlib.new(descriptor.digest.algorithm)
        self.offset = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self.offset += len(data)

    def abort(self) -> None: ...

    def verify(self) -> None:
        digest = self._descriptor.digest
        if self._hasher.hexdigest() != digest.hex:
            raise LaminaError(
                f"digest is {digest.algorithm}:{self._hasher.hexdigest()} instead of {digest}",
                kind=Kind.INTEGRITY,
            )
        self._file.flush()
        os.fsync(self._file.fileno())


def _replace_file(path: str, content: bytes) -> None:
    temporary = f"{path}.{unique_name()}.new"
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
