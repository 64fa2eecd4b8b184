# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed: functions of bytes that return, or raise LaminaError with a printable message.

Anything else that comes out is a bug. No fuzzer is imported here: tests/property/fuzz runs the same
functions under hypothesis.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

from lamina.dockerfile.expand import expand
from lamina.dockerfile.ignore import IgnoreMatcher, clean, parse_ignore
from lamina.dockerfile.lower import (
    Lowering,
    LowerOptions,
    NeedImages,
    NeedRemotes,
    ResolvedImage,
)
from lamina.dockerfile.parser import parse
from lamina.errors import LaminaError
from lamina.layer.compress import decompressed
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar
from lamina.plan.dump import dump_plan
from lamina.server import manifests, routes, wire
from lamina.server.tokens import parse_scopes
from lamina.server.tokenservice import parse_basic
from lamina.server.web.site import _image_named
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig, RunConfig
from lamina.spec.digest import DiffID, Digest
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference
from lamina.testing.corpus import read_corpus

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
MAX_CONTENT = 1 << 22  # bytes read of an archive: a decompression bomb is not what is looked for
_OPTIONS = LowerOptions(platform=Platform("linux", "amd64"), build_args=(("A", "$B"),))
_BASE = ImageConfig("amd64", "linux", (DiffID(Digest.of(b"x")),), RunConfig(on_build=("RUN $A",)))


def dockerfile(data: bytes) -> None:
    """Parse and lower; what comes out must print, serialise and encode."""
    lowering = Lowering(parse(data), _OPTIONS)
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    while isinstance(found := lowering.step(resolved), NeedImages):
        for request in found.requests:
            resolved[request.key] = ResolvedImage(request.reference, Digest.of(b"m"), _BASE)
    if isinstance(found, NeedRemotes):  # nothing is fetched here: what comes out without it
        found = found.draft
    found.config.serialise()
    dump_plan(found.plan).encode()
    for diagnostic in found.diagnostics:
        diagnostic.message.encode()


def ignore(data: bytes) -> None:
    """Patterns up to the first NUL, a path after it: matched, and a cleaned path stays clean."""
    patterns, _, path = data.decode("utf-8", "surrogateescape").partition("\0")
    name = clean("/" + path)[1:]
    assert clean("/" + name)[1:] == name
    matcher = IgnoreMatcher(parse_ignore(patterns))
    if name:
        matcher.excludes(name)
        matcher.may_include_below(name)


def words(data: bytes) -> None:
    """A value with variables, in every way that instructions expand one.

    What is quoted or unset may stay as it is, but nothing is lost: without a special character the
    text comes back, and words hold no more than the text.
    """
    flags, text = data[:1] or b"\0", data[1:].decode("utf-8", "replace")
    bits = flags[0]
    env = {"a": "one two", "b": "", "c": "x/y.tar.gz", "d": "'q\\\"*?"}
    found = expand(
        text,
        env,
        escape="`" if bits & 1 else "\\",
        raw_quotes=bool(bits & 2),
        raw_escapes=bool(bits & 4),
        keep_unset=bool(bits & 8),
        heredocs=bool(bits & 16),
        plain_quotes=bool(bits & 32),
    )
    assert set(found.missing).isdisjoint(env)
    assert len("".join(found.words)) <= len(found.text)
    if not any(char in text for char in "$'\"\\`<"):
        assert found.text == text


def reference(data: bytes) -> None:
    """A reference prints as something that parses to the same."""
    found = Reference.parse(data.decode("utf-8", "surrogateescape"))
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar()) == found


def archive(data: bytes) -> None:
    """What was read of an archive can be written, and reads the same again."""
    items = []
    left = MAX_CONTENT
    for entry, reader in read_tar(decompressed(io.BytesIO(data))):
        content = reader.read(left + 1)
        left -= len(content)
        if left < 0:
            return
        items.append((entry, content))
    written = io.BytesIO()
    write_tar(iter([(entry, io.BytesIO(content)) for entry, content in items]), written.write)
    written.seek(0)
    again = [(entry, reader.read()) for entry, reader in read_tar(written)]
    assert again == items


def registry(data: bytes) -> None:
    """A request to the registry server, lines: path, query, header values, a manifest after them.

    Whatever is accepted keeps to the grammar: no name leaves its directory, no range its blob.
    """
    text, _, raw = data.partition(b"\n\n")
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    path, query, *values = [*lines, "", ""]
    for value in values:
        _ignoring(lambda value=value: _inside(wire.parse_range(value, size=1000)))
        _ignoring(lambda value=value: wire.parse_content_range(value))
        _ignoring(lambda value=value: wire.parse_page({"n": value}, limit=10))
        _ignoring(lambda value=value: parse_scopes([value]))
        parse_basic(value)
    request = wire.Request("GET", path, query, {}, "127.0.0.1")
    _ignoring(request.parameters)
    _ignoring(lambda: _image_named(path))
    for media_type in ("", mediatype.OCI_MANIFEST, mediatype.OCI_INDEX):
        _ignoring(lambda kind=media_type: manifests.parse(raw, content_type=kind, digest=None))
    name = getattr(routes.route(path), "repository", "a")
    assert ".." not in name.split("/")
    assert not name.startswith("/")


def _ignoring(work: Callable[[], object]) -> None:
    """Do it; a LaminaError is an answer."""
    try:
        work()
    except LaminaError as error:
        f"{error}".encode()


def _inside(found: tuple[int, int] | None) -> None:
    if found is not None:
        offset, length = found
        assert 0 <= offset < offset + length <= 1000


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dockerfile": dockerfile,
    "ignore": ignore,
    "words": words,
    "reference": reference,
    "archive": archive,
    "registry": registry,
}


def run(target: str, data: bytes) -> None:
    """One input. Anything but a LaminaError that can be shown escapes."""
    try:
        TARGETS[target](data)
    except LaminaError as error:
        f"{error} {error.hint}".encode()


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with: what the tests know, and what was found before."""
    if target == "dockerfile":
        for path in sorted(TESTS.glob("golden/dockerfile/**/Dockerfile")):
            yield path.read_bytes()
        for case in read_corpus(TESTS / "corpus"):
            yield (case.section("Dockerfile") or "").encode()
    elif target == "ignore":
        for text in ("a\n!b\0a/b", "**/*.log\n\0x/y.log", "[a-c]?\\*\n!**/z\0b1*", "/x/../y\0y/z"):
            yield text.encode()
    elif target == "words":
        for text in ("$a ${b:-$c} ${d+'x y'}", "${c%%.*}${c##*/}${c/y/z}${c//[.]/}", '"$a"\\$b'):
            yield from (bytes([bits]) + text.encode() for bits in (0, 1, 14, 36))
    elif target == "reference":
        digest = "sha256:" + "0" * 64
        for text in ("ubuntu", "a.b:5000/c/d:tag", f"x@{digest}", f"localhost/y:1@{digest}"):
            yield text.encode()
    elif target == "registry":
        yield from _requests()
    else:
        yield from _archives()
    for path in sorted((ROOT / "fuzz" / "regressions").glob(f"{target}-*")):
        yield path.read_bytes()


def _requests() -> Iterator[bytes]:
    """Requests as the registry gets them."""
    digest = "sha256:" + "0" * 64
    for path in (
        "/v2/a/b/manifests/v1",
        f"/v2/a/blobs/{digest}",
        "/v2/a/blobs/uploads/" + "x" * 43,
        "/v2/a/../b/tags/list",
        f"a/b@{digest}",
    ):
        query = f"n=1&last=a&digest={digest}"
        values = [
            "bytes=0-5",
            "0-5",
            "bytes 1-2/3",
            "7",
            "repository:a/b:pull,push",
            "dXNlcjpwdw==",
        ]
        manifest = b'{"schemaVersion":2,"config":{"digest":"' + digest.encode() + b'","size":1}}'
        yield "\n".join([path, query, *values]).encode() + b"\n\n" + manifest


def _archives() -> Iterator[bytes]:
    """Small archives in the formats of Python's tarfile, plain and compressed."""
    import bz2
    import gzip
    import lzma
    import tarfile

    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type = kind
                entry.size = 5 if kind == tarfile.REGTYPE else 0
                tar.addfile(entry, io.BytesIO(b"hello"))
            for name, kind in (("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, "d/f"
                tar.addfile(entry)
            long = tarfile.TarInfo("n" * 90 + "/" + "m" * 90)
            tar.addfile(long)
        yield buffer.getvalue()
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        yield compress(buffer.getvalue())
