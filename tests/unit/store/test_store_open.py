# SPDX-License-Identifier: Apache-2.0
"""Opening, making and migrating a store."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.store import LocalStore, open_store
from lamina.store.local import MIGRATIONS, VERSION


def test_new_store_is_private_and_a_valid_image_layout(store: LocalStore) -> None:
    assert stat.S_IMODE(os.stat(store.root).st_mode) == 0o700
    assert Path(store.root, "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert '"manifests":[]' in Path(store.root, "index.json").read_text()


def test_opening_an_existing_store_writes_nothing(root: str) -> None:
    open_store(root).close()
    before = _times(root)
    opened = open_store(root)
    opened.metadata.list_names()
    opened.metadata.get_name("docker.io/library/app:latest")
    opened.close()
    assert _times(root) == before


def _times(root: str) -> dict[str, tuple[int, int]]:
    """(ctime, inode) of every file; sqlite's own -wal and -shm come and go with readers."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not name.endswith(("-wal", "-shm")):
                status = os.stat(path)
                found[path] = (status.st_ctime_ns, status.st_ino)
    return found


def test_store_of_another_user_is_refused(root: str) -> None:
    open_store(root).close()
    with pytest.raises(LaminaError) as caught:
        open_store(root, owner=os.geteuid() + 1)
    assert caught.value.kind is Kind.DENIED
    assert str(os.geteuid()) in str(caught.value)


def test_store_that_others_may_write_is_refused(root: str) -> None:
    open_store(root).close()
    os.chmod(root, 0o777)
    with pytest.raises(LaminaError) as caught:
        open_store(root)
    assert caught.value.kind is Kind.DENIED
    assert "chmod" in caught.value.hint


def test_directory_with_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(LaminaError) as caught:
        open_store(str(tmp_path))
    assert caught.value.kind is Kind.INVALID
    assert "thesis.tex" in str(caught.value)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaminaError) as caught:
        open_store(str(tmp_path / "file"))
    assert caught.value.kind is Kind.INVALID


def test_relative_root_is_refused() -> None:
    with pytest.raises(LaminaError):
        open_store("store")


def test_half_made_store_is_completed(root: str) -> None:
    open_store(root).close()
    os.unlink(os.path.join(root, "lamina-store"))
    os.rmdir(os.path.join(root, "leases"))
    opened = open_store(root)
    with opened.lease("test"):
        assert opened.metadata.list_names() == []
    opened.close()


def test_image_layout_of_another_tool_is_taken_over(root: str, tmp_path: Path) -> None:
    source = open_store(root)
    manifest = b'{"schemaVersion":2,"config":%s,"layers":[]}' % (
        b'{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":2}'
        % (b"0" * 64)
    )
    target = Descriptor(mediatype.OCI_MANIFEST, source.content.add(manifest), len(manifest))
    source.metadata.set_names(["docker.io/library/app:latest"], target)
    source.close()
    layout = tmp_path / "layout"
    layout.mkdir()
    for name in ("blobs", "oci-layout", "index.json"):
        os.rename(os.path.join(root, name), layout / name)
    taken = open_store(str(layout))
    assert [(named.name, named.target) for named in taken.metadata.list_names()] == [
        ("docker.io/library/app:latest", target)
    ]
    taken.close()


def test_store_of_a_newer_lamina_is_refused(root: str) -> None:
    open_store(root).close()
    Path(root, "lamina-store").write_text("999\n")
    with pytest.raises(LaminaError) as caught:
        open_store(root)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_unreadable_version_is_refused(root: str) -> None:
    open_store(root).close()
    Path(root, "lamina-store").write_text("one\n")
    with pytest.raises(LaminaError) as caught:
        open_store(root)
    assert caught.value.kind is Kind.INVALID


def test_older_store_is_migrated_once(root: str) -> None:
    open_store(root).close()
    Path(root, "lamina-store").write_text("0\n")
    ran: list[str] = []
    for _ in range(2):
        open_store(root, migrations={**MIGRATIONS, 0: ran.append}).close()
    assert ran == [root]
    assert Path(root, "lamina-store").read_text() == f"{VERSION}\n"


def test_interrupted_migration_is_run_again(root: str) -> None:
    open_store(root).close()
    Path(root, "lamina-store").write_text("0\n")

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(root, migrations={0: killed})
    ran: list[str] = []
    open_store(root, migrations={**MIGRATIONS, 0: ran.append}).close()
    assert ran == [root]


def test_store_without_a_migration_is_refused(root: str) -> None:
    open_store(root).close()
    Path(root, "lamina-store").write_text("0\n")
    with pytest.raises(LaminaError) as caught:
        open_store(root)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_path_with_characters_of_uris_works(tmp_path: Path) -> None:
    opened = open_store(str(tmp_path / "50% #1?mode=ro"))
    opened.metadata.put_stat("/x", b"1")
    assert opened.metadata.get_stat("/x") == b"1"
    opened.close()


def test_closed_store_opens_its_database_again_when_used(store: LocalStore) -> None:
    store.close()
    store.close()
    assert store.metadata.list_names() == []


def test_named_lock_excludes(store: LocalStore, open_again: Callable[[], LocalStore]) -> None:
    lock = open_again().lock("chain:x")
    with store.lock("chain:x"):
        assert not lock.try_acquire()
    assert lock.try_acquire()
    lock.release()


def test_reading_path_loads_no_heavy_modules(root: str) -> None:
    open_store(root).close()
    script = (
        "import sys\n"
        "from lamina.store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "store.metadata.list_names(); store.metadata.get_stat('/x'); store.documents.list('x')\n"
        "heavy = {'ctypes', 'threading', 'tarfile', 'subprocess', 'shutil', 'logging', 'typing'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n{script}",
            root,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
