# SPDX-License-Identifier: Apache-2.0
"""lamina's compiled modules in one file, so that a command opens one file instead of a hundred.

The file lies in `__pycache__` beside the `.pyc` files it is made of, with the same rights and the same
rule: an entry counts while its source has the modification time and size that it was compiled from.
Another version of lamina has another file format, because an installer may give all files one time.
What is missing, stale or unreadable is imported as usual. docs/adr/0104-code-cache.md has the figures.

    python -m lamina.start.codecache        # after compileall: all modules, whatever was used so far
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys

from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib import _bootstrap_external as importing
    from importlib.machinery import ModuleSpec
    from types import CodeType

    # (is a package, source's mtime in seconds, source's size, where the code begins and how long it is)
    Entry = tuple[bool, int, int, int, int]
else:
    import _frozen_importlib_external as importing  # the same module, loaded with the interpreter

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# format, size of the file (a torn one has another), size of the index; then the index, then all code
_FORMAT = f"lamina {__version__} code 1\n".encode() + importing.MAGIC_NUMBER
_HEAD = len(_FORMAT) + 16
_PYC_HEADER = 16  # bytes: magic, flags, mtime, size (PEP 552)


def install() -> CodeCache | None:
    """Import lamina's modules from the file from now on; None if this interpreter keeps none.

    It uses more of the import system than is documented: interpreters on which it was not tried import
    from `.pyc` files as usual.
    """
    if sys.flags.optimize or sys.pycache_prefix is not None or not _is_tried(sys.version_info):
        return None
    found = CodeCache(_mapped(_path()))
    sys.meta_path.insert(0, found)
    return found


def _is_tried(version: tuple[object, ...]) -> bool:
    return sys.implementation.name == "cpython" and (3, 11) <= version[:2] <= (3, 14)


class CodeCache:
    """A finder of modules (importlib.abc.MetaPathFinder) over the file's bytes."""

    def __init__(self, blob: memoryview) -> None:
        self._index, self._code = _parse(blob)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module's spec, if the file has it and its source did not change since."""
        entry = self._index.get(name)
        if entry is None:
            return None
        source = _source(name, is_package=entry[0])
        try:
            status = os.stat(source)
        except OSError:
            return None
        if (int(status.st_mtime), status.st_size) != entry[1:3]:
            del self._index[name]
            return None
        code = self._code[entry[3] : entry[3] + entry[4]]
        return importing.spec_from_file_location(
            name,
            source,
            loader=_Loader(name, source, code),
            submodule_search_locations=[os.path.dirname(source)] if entry[0] else None,
        )

    def keep(self) -> None:
        """Write the file again if this process imported a module that is not in it, or stale."""
        missing = [
            name for name in sys.modules if name.startswith("lamina.") and name not in self._index
        ]
        if (
            not missing
            or sys.dont_write_bytecode
            or not os.access(os.path.dirname(_path()), os.W_OK)
        ):
            return
        # where modules have no `.pyc` files with times (but with hashes, say) each command would write
        if any(_compiled(name) is not None for name in missing):
            write()


class _Loader(importing.SourceFileLoader):
    """The loader of a module whose code is at hand; all else (source, resources) as usual."""

    def __init__(self, name: str, path: str, code: memoryview) -> None:
        super().__init__(name, path)
        self._compiled = code

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            code: CodeType | None = marshal.loads(self._compiled)  # noqa: S302  # ours, as .pyc files are
        except (EOFError, ValueError, TypeError):
            code = super().get_code(fullname)
        _imp._fix_co_filename(code, self.path)  # type: ignore[attr-defined]
        return code


def _path() -> str:
    return f"{_PACKAGE}/__pycache__/modules.{sys.implementation.cache_tag}.codes"


def _source(name: str, *, is_package: bool) -> str:
    place = _PACKAGE + name.removeprefix("lamina").replace(".", "/")
    return f"{place}/__init__.py" if is_package else f"{place}.py"


def _mapped(path: str) -> memoryview:
    """The file's bytes, read as they are touched; empty if there is none."""
    import mmap

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return memoryview(b"")
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    except (OSError, ValueError):
        return memoryview(b"")
    finally:
        os.close(fd)


def _parse(blob: memoryview) -> tuple[dict[str, Entry], memoryview]:
    """The index, and the code that its offsets point into."""
    ends = (len(_FORMAT), len(_FORMAT) + 8)
    size, length = (int.from_bytes(blob[end : end + 8], "little") for end in ends)
    if blob[: len(_FORMAT)] != _FORMAT or size != len(blob):
        return {}, blob
    try:
        index: dict[str, Entry] = marshal.loads(blob[_HEAD : _HEAD + length])  # noqa: S302
    except (EOFError, ValueError, TypeError):
        return {}, blob
    return index, blob[_HEAD + length :]


def _compiled(name: str) -> tuple[bool, int, int, bytes] | None:
    """What the `.pyc` file of a module holds, if it is one with a time of its source."""
    is_package = os.path.isdir(_source(name, is_package=False).removesuffix(".py"))
    source = _source(name, is_package=is_package)
    try:
        status = os.stat(source)
        with open(importing.cache_from_source(source), "rb") as file:
            blob = file.read()
    except OSError:
        return None
    flags, mtime, size = (int.from_bytes(blob[at : at + 4], "little") for at in (4, 8, 12))
    if blob[:4] != importing.MAGIC_NUMBER or flags:
        return None
    if (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF) != (mtime, size):
        return None
    return is_package, int(status.st_mtime), status.st_size, blob[_PYC_HEADER:]


def write() -> None:
    """Write the file with every module that is compiled. Says nothing if that is not possible."""
    modules = {name: row for name in sorted(_names()) if (row := _compiled(name)) is not None}
    index: dict[str, Entry] = {}
    start = 0
    for name, (is_package, mtime, size, code) in modules.items():
        index[name] = (is_package, mtime, size, start, len(code))
        start += len(code)
    head = marshal.dumps(index)
    sizes = [_HEAD + len(head) + start, len(head)]
    parts = [_FORMAT, *(size.to_bytes(8, "little") for size in sizes), head]
    parts += [row[3] for row in modules.values()]
    temporary = f"{_path()}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(b"".join(parts))
            os.rename(temporary, _path())
        except OSError:
            os.unlink(temporary)
    except OSError:
        return


def _names() -> Iterator[str]:
    for place, directories, files in os.walk(_PACKAGE):
        directories[:] = [name for name in directories if name != "__pycache__"]
        inside = os.path.relpath(place, _PACKAGE)
        package = "lamina" if inside == "." else "lamina." + inside.replace("/", ".")
        if inside != ".":
            yield package
        for name in files:
            if name.endswith(".py") and name not in {"__init__.py", "__main__.py"}:
                yield f"{package}.{name.removesuffix('.py')}"


if __name__ == "__main__":
    write()
