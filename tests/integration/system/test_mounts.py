# SPDX-License-Identifier: Apache-2.0
"""Real mounts on this kernel."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.system import mounts
from lamina.system.mounts import bind, mount_overlay, mounted, overlay_fd, tmpfs, unmount
from lamina.system.overlay import OverlayMount
from lamina.testing.skips import host_lacks

pytestmark = pytest.mark.root


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "target").mkdir()
    return str(tmp_path / "target")


def layers(tmp_path: Path, count: int) -> tuple[str, ...]:
    """Directories, top first; layer N holds the file N."""
    made = []
    for number in range(count):
        directory = tmp_path / f"layer {number}"
        directory.mkdir()
        (directory / str(number)).write_text("x")
        made.append(str(directory))
    return tuple(reversed(made))


def writable(tmp_path: Path, lowers: tuple[str, ...]) -> OverlayMount:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    return OverlayMount(lowers, str(tmp_path / "upper"), str(tmp_path / "work"))


MOUNTERS = [
    pytest.param(mount_overlay, id="new API"),
    pytest.param(
        lambda mount, target: mounts._legacy_overlay(mount, target, volatile=False),
        id="mount(2)",
    ),
]
Mounter = Callable[[OverlayMount, str], None]


@pytest.mark.parametrize("mount", MOUNTERS)
@pytest.mark.parametrize("count", [0, 1, 2, 120])
def test_read_only_stack_shows_all_layers(
    tmp_path: Path, target: str, count: int, mount: Mounter
) -> None:
    mount(OverlayMount(layers(tmp_path, count)), target)
    try:
        assert sorted(os.listdir(target), key=int) == [str(n) for n in range(count)]
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(os.path.join(target, "new"))
    finally:
        unmount(target)
    assert os.listdir(target) == []


@pytest.mark.parametrize("mount", MOUNTERS)
@pytest.mark.parametrize("count", [0, 1, 120])
def test_writes_go_to_the_upper_directory(
    tmp_path: Path, target: str, count: int, mount: Mounter
) -> None:
    overlay = writable(tmp_path, layers(tmp_path, count))
    mount(overlay, target)
    try:
        (Path(target) / "new").write_text("hello")
    finally:
        unmount(target)
    assert (tmp_path / "upper" / "new").read_text() == "hello"


def test_five_hundred_layers_are_the_limit(tmp_path: Path, target: str) -> None:
    with mounted(OverlayMount(layers(tmp_path, 500)), target):
        assert len(os.listdir(target)) == 500
    with pytest.raises(LaminaError) as caught:
        mount_overlay(OverlayMount(("/",) * 501), target)
    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize("mount", MOUNTERS)
def test_paths_may_hold_colons_commas_backslashes_and_any_bytes(
    tmp_path: Path, target: str, mount: Mounter
) -> None:
    odd = tmp_path / os.fsdecode(b"a:b,c\\d \xff=e")
    odd.mkdir()
    stack = layers(odd, 2)
    overlay = writable(odd, stack)
    mount(overlay, target)
    try:
        assert sorted(os.listdir(target)) == ["0", "1"]
    finally:
        unmount(target)


def test_volatile_snapshot_can_be_mounted_again(tmp_path: Path, target: str) -> None:
    overlay = writable(tmp_path, layers(tmp_path, 2))
    for number in range(3):
        with mounted(overlay, target, volatile=True):
            (Path(target) / f"new {number}").write_text("x")
    with mounted(overlay, target):
        assert len(os.listdir(target)) == 5


def test_nothing_but_plain_files_is_stored_in_the_upper_directory(
    tmp_path: Path, target: str
) -> None:
    """Renamed directories must be copied, not redirected: layers are read without overlayfs."""
    lower = tmp_path / "lower" / "directory"
    lower.mkdir(parents=True)
    (lower / "file").write_text("x")
    overlay = writable(tmp_path, (str(tmp_path / "lower"),))
    with mounted(overlay, target):
        subprocess.run(["mv", f"{target}/directory", f"{target}/renamed"], check=True)
        os.chmod(f"{target}/renamed/file", 0o600)
    for directory, directories, files in os.walk(tmp_path / "upper"):
        for name in [*directories, *files]:
            attributes = os.listxattr(os.path.join(directory, name), follow_symlinks=False)
            assert not {"trusted.overlay.redirect", "trusted.overlay.metacopy"} & set(attributes)
    assert (tmp_path / "upper" / "renamed" / "file").read_text() == "x"


def test_detached_mount_is_used_by_descriptor_and_ends_with_it(tmp_path: Path) -> None:
    overlay = writable(tmp_path, layers(tmp_path, 2))
    before = Path("/proc/self/mountinfo").read_text()
    fd = overlay_fd(overlay)
    try:
        assert sorted(os.listdir(fd)) == ["0", "1"]
        os.mkdir("made", dir_fd=fd)
        assert Path("/proc/self/mountinfo").read_text() == before
    finally:
        os.close(fd)
    assert os.listdir(tmp_path / "upper") == ["made"]


@pytest.mark.parametrize("count", [0, 1])
def test_detached_view_of_few_layers_is_read_only(tmp_path: Path, count: int) -> None:
    fd = overlay_fd(OverlayMount(layers(tmp_path, count)))
    try:
        assert os.listdir(fd) == ["0"][:count]
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("made", dir_fd=fd)
    finally:
        os.close(fd)


def test_bind_of_a_file_read_only(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("source")
    (tmp_path / "place").write_text("")
    bind(str(tmp_path / "source"), str(tmp_path / "place"), read_only=True)
    try:
        assert (tmp_path / "place").read_text() == "source"
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "place").write_text("changed")
    finally:
        unmount(str(tmp_path / "place"))
    (tmp_path / "source").write_text("still writable")


def test_recursive_read_only_bind_covers_what_is_mounted_below(tmp_path: Path, target: str) -> None:
    (tmp_path / "source" / "below").mkdir(parents=True)
    tmpfs(str(tmp_path / "source" / "below"), size=1 << 20)
    try:
        bind(str(tmp_path / "source"), target, read_only=True, recursive=True)
        try:
            with pytest.raises(OSError, match="Read-only"):
                os.mkdir(os.path.join(target, "below", "x"))
        finally:
            unmount(target)
        os.mkdir(tmp_path / "source" / "below" / "x")
    finally:
        unmount(str(tmp_path / "source" / "below"))


def test_tmpfs_is_limited_to_its_size(target: str) -> None:
    tmpfs(target, size=64 * 1024)
    try:
        with pytest.raises(OSError, match="No space"):
            (Path(target) / "big").write_bytes(b"x" * 1024 * 1024)
    finally:
        unmount(target)


def test_missing_layer_is_named(tmp_path: Path, target: str) -> None:
    attempts: tuple[Callable[[], None], ...] = (
        lambda: mount_overlay(OverlayMount(("/nonexistent", "/")), target),
        lambda: mounts._legacy_overlay(OverlayMount(("/nonexistent", "/")), target, volatile=False),
        lambda: mount_overlay(OverlayMount(("/nonexistent",)), target),
    )
    for mount in attempts:
        with pytest.raises(LaminaError) as caught:
            mount()
        assert caught.value.kind is Kind.NOT_FOUND
        assert "/nonexistent" in str(caught.value)


def test_unmounting_what_is_not_mounted_is_an_error(target: str) -> None:
    with pytest.raises(LaminaError, match="not a mount point"):
        unmount(target)


def test_unmounting_does_not_follow_links(tmp_path: Path, target: str) -> None:
    tmpfs(target, size=4096)
    try:
        os.symlink(target, tmp_path / "link")
        with pytest.raises(LaminaError):
            unmount(str(tmp_path / "link"))
        assert os.path.ismount(target)
    finally:
        unmount(target)


def run(script: str, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{script}"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_isolated_mounts_are_not_seen_by_the_host_and_end_with_the_process(target: str) -> None:
    script = (
        "import os\n"
        "from lamina.system.mounts import isolate, tmpfs\n"
        "isolate()\n"
        "tmpfs(sys.argv[1], size=4096)\n"
        "host = os.path.exists('/proc/%s/root' % os.getppid()) and open("
        "'/proc/%s/mountinfo' % os.getppid()).read()\n"
        "print(os.path.ismount(sys.argv[1]), sys.argv[1] in host)"
    )
    assert run(script, target) == "True False\n"
    assert not os.path.ismount(target)


def test_hybrid_cgroup_mount_is_covered_inside_only() -> None:
    unified = "/sys/fs/cgroup/unified"
    if not os.path.ismount(unified):
        host_lacks("a hybrid cgroup mount")
    before = os.listdir(unified)
    script = (
        "import os\nfrom lamina.system.mounts import isolate\nisolate()\n"
        f"print(os.listdir({unified!r}))"
    )
    assert run(script) == "[]\n"
    assert os.listdir(unified) == before


@pytest.mark.tool("setpriv")
def test_without_the_privilege_the_error_says_what_is_needed(target: str) -> None:
    script = (
        "from lamina.errors import LaminaError\n"
        "from lamina.system.mounts import isolate, mount_overlay\nfrom lamina.system.overlay import OverlayMount\n"
        "for try_it in (isolate, lambda: mount_overlay(OverlayMount(('/', '/usr')), sys.argv[1])):\n"
        "    try:\n"
        "        try_it()\n"
        "    except LaminaError as error:\n"
        "        print(error.kind.name, bool(error.hint))"
    )
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert run(script, target, prefix=drop) == "DENIED True\n" * 2


@pytest.mark.tool("unshare")
def test_overlay_in_a_user_namespace_uses_user_attributes(tmp_path: Path, target: str) -> None:
    overlay = writable(tmp_path, layers(tmp_path, 2))
    script = (
        "import os\n"
        "from lamina.system.mounts import mounted\nfrom lamina.system.overlay import OverlayMount\n"
        "lowers, upper, work, target = sys.argv[1].split('|'), *sys.argv[2:]\n"
        "with mounted(OverlayMount(tuple(lowers), upper, work), target):\n"
        "    os.unlink(target + '/0')\n"
        "    print(sorted(os.listdir(target)))"
    )
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    arguments = ("|".join(map(str, overlay.lowers)), overlay.upper, overlay.work, target)
    assert run(script, *arguments, prefix=unshare) == "['1']\n"


def with_node(directory: Path) -> Path:
    """A device node that everybody may open by its mode (the numbers of /dev/zero)."""
    directory.mkdir(exist_ok=True)
    node = directory / "node"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    node.chmod(0o666)
    return node


def opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError:
        return False
    return True


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize(
    ("count", "is_writable"), [(0, True), (1, False), (1, True), (2, False), (2, True)]
)
def test_device_nodes_of_layers_cannot_be_opened(
    tmp_path: Path, target: str, count: int, *, is_legacy: bool, is_writable: bool
) -> None:
    lowers = layers(tmp_path, count)
    mount = writable(tmp_path, lowers) if is_writable else OverlayMount(lowers)
    with_node(Path(lowers[-1] if lowers else mount.upper) / "below")
    node = f"{target}/below/node"
    for devices in (False, True):
        if is_legacy:
            mounts._legacy_overlay(mount, target, volatile=False, devices=devices)
        else:
            mount_overlay(mount, target, devices=devices)
        try:
            assert stat.S_ISCHR(os.stat(node).st_mode)
            assert opens(node) is devices
        finally:
            unmount(target)


def test_detached_views_open_no_device_nodes(tmp_path: Path) -> None:
    lowers = layers(tmp_path, 2)
    with_node(Path(lowers[-1]) / "lower")
    for view in (lowers, lowers[-1:]):
        fd = overlay_fd(OverlayMount(view))
        try:
            assert not opens(f"/proc/self/fd/{fd}/lower/node")
        finally:
            os.close(fd)


def test_bind_on_a_kernel_without_mount_setattr(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_old(*_: object, **__: object) -> None:
        raise mounts._TooOld

    monkeypatch.setattr(mounts, "_set_attributes", too_old)
    with_node(tmp_path / "source")
    tmpfs_flags = os.statvfs(tmp_path).f_flag
    bind(str(tmp_path / "source"), target, read_only=True)
    try:
        assert not opens(f"{target}/node")
        found = os.statvfs(target).f_flag
        assert found & os.ST_RDONLY
        assert found & os.ST_NODEV
        assert found & os.ST_NOSUID == tmpfs_flags & os.ST_NOSUID
    finally:
        unmount(target)
