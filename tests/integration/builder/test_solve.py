# SPDX-License-Identifier: Apache-2.0
"""Plans on a real store, overlayfs and OCI runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from lamina.builder.ports import StepFailed
from lamina.errors import Cancelled, Kind, LaminaError, SourceError
from lamina.events import Event, Notice, Outcome, VertexDone, VertexLog
from lamina.layer.entry import EntryType
from lamina.plan.ops import CopyAction, FileOp, MkdirAction
from lamina.spec.identity import chain_id
from lamina.spec.span import SourceText, Span
from lamina.store.working import working_key
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from conftest import Site  # type: ignore[import-not-found]  # found by pytest

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

RAN, CACHED = Outcome.RAN, Outcome.CACHED
SPAN = Span(SourceText("Dockerfile", ("FROM b", "RUN it", "CMD x")), 2, 2)


# The walk of a build ------------------------------------------------------------------------


def test_steps_see_what_the_steps_before_them_made(site: Site) -> None:
    (site.context / "app.py").write_text("print()\n")
    one = site.run("echo one > /one; rm /srv/file")
    copied = site.copy(".", to="/app/", base=one)
    inside = site.workdir("/app/data", copied)
    last = site.run("cat /one /app/app.py; test -d data && ! test -e /srv/file", inside, cwd="/app")
    solved = site.solve(last, one, copied, inside)
    assert (solved.ran, solved.cached) == (4, 0)
    assert site.output(last) == b"one\nprint()\n"
    assert len(solved.outputs[0]) == 5
    assert site.layer(solved.outputs[0][1]).keys() >= {b"one", b"srv/.wh.file"}


def test_second_solve_is_all_cached_and_gives_the_same(site: Site) -> None:
    (site.context / "f").write_text("f")
    step = site.run("touch /x", site.copy("f", to="/"))
    others = (site.copy("f", to="/"),)
    first = site.solve(step, *others)
    executors = site.executors
    second = site.solve(step, *others)
    assert first.outputs == second.outputs
    assert (second.ran, second.cached) == (0, 2)
    assert site.outcomes() == [CACHED, CACHED]
    assert site.executors == executors


def test_changed_file_reruns_its_copy_and_what_follows_only(site: Site) -> None:
    (site.context / "app.py").write_text("1")
    before = site.run("echo slow > /slow")
    copied = site.copy("app.py", to="/", base=before)
    after = site.run("cat /app.py", copied)
    site.solve(after, before, copied)
    (site.context / "app.py").write_text("2")
    solved = site.solve(after, before, copied)
    assert (solved.ran, solved.cached) == (2, 1)
    assert site.output(after) == b"2"


def test_file_that_is_not_copied_changes_nothing(site: Site) -> None:
    (site.context / "app.py").write_text("1")
    copied = site.copy(".", to="/app/", ignore=("*.log",))
    source = site.vertex(_local(("*.log",)))
    site.solve(copied, source)
    (site.context / "debug.log").write_text("x")
    os.utime(site.context / "app.py", (1, 1))
    assert site.solve(copied, source).ran == 0


def _local(ignore: tuple[str, ...]) -> object:
    from lamina.plan.ops import LocalSource

    return LocalSource("context", ignore)


def test_step_after_a_copy_stays_cached_when_an_earlier_step_gives_the_same(site: Site) -> None:
    (site.context / "f").write_text("f")

    def steps(script: str) -> list[object]:
        first = site.run(script)
        copied = site.copy("f", to="/", base=first)
        return [site.run("cat /f", copied), first, copied]

    site.solve(*steps("touch -d @1 /made; true"))
    solved = site.solve(*steps("touch -d @1 /made; test 1"))
    assert (solved.ran, solved.cached) == (1, 2)
    assert site.outcomes() == [RAN, CACHED, CACHED]


def test_copy_from_a_stage_is_cached_by_what_it_copies(site: Site) -> None:
    def target(script: str) -> list[object]:
        stage = site.run(script, exported=False)
        copied = site.copy("/out/bin", to="/usr/bin/", source=stage)
        return [site.run("/bin/cat /usr/bin/bin", copied), stage, copied]

    site.solve(*target("mkdir /out; echo same > /out/bin; echo 1 > /log"))
    solved = site.solve(*target("mkdir /out; echo same > /out/bin; echo 2 > /log"))
    assert (solved.ran, solved.cached) == (1, 2)


def test_no_cache_runs_everything_and_records_it(site: Site) -> None:
    step = site.run("touch -d @1 /x")
    site.solve(step)
    assert site.solve(step, no_cache=True).ran == 1
    assert site.solve(step).ran == 0


def test_from_scratch(site: Site) -> None:
    (site.context / "f").write_text("f")
    copied = site.vertex(FileOp((CopyAction(1, ("f",), "/"),)), None, site.source)
    solved = site.solve(copied)
    assert list(site.layer(solved.outputs[0][0])) == [b"f"]


def test_workdir_that_exists_is_an_empty_layer(site: Site) -> None:
    solved = site.solve(site.workdir("/srv/link"))
    assert site.layer(solved.outputs[0][1]) == {}
    made = site.solve(site.workdir("/srv/dangling/x")).outputs[0][1]
    assert list(site.layer(made)) == [b"srv", b"srv/made", b"srv/made/here", b"srv/made/here/x"]


def test_a_row_of_copies_unpacks_none_of_them(site: Site) -> None:
    (site.context / "passwd").write_text("new:x:7:8::/:\n")
    one = site.copy("passwd", to="/etc/")
    two = site.copy("passwd", to="/one", base=one, owner="new:web")
    three = site.copy("passwd", to="/one", base=two)
    solved = site.solve(three, one, two)
    owned = site.layer(solved.outputs[0][2])[b"one"][0]
    assert (owned.uid, owned.gid) == (7, 33)
    for length in (2, 3, 4):
        chain = chain_id(solved.outputs[0][:length])
        assert chain is not None
        assert not site.store.snapshots.exists(chain)


def test_layer_that_no_image_gets_has_no_blob(site: Site) -> None:
    stage = site.run("touch /x", exported=False)
    solved = site.solve(stage)
    record = site.store.metadata.get_layer(solved.outputs[0][-1])
    assert record is not None
    assert record.blobs == ()


def test_setuid_files_of_a_stage_keep_mode_and_owner(site: Site) -> None:
    script = "mkdir /o; cat /bin/cat > /o/tool; /bin/busybox chown 5:6 /o/tool; chmod 6755 /o/tool"
    stage = site.run(script, exported=False)
    solved = site.solve(site.copy("/o/tool", to="/tool", source=stage), stage)
    entry = site.layer(solved.outputs[0][-1])[b"tool"][0]
    assert (entry.mode, entry.uid, entry.gid) == (0o6755, 5, 6)


def test_empty_working_directory_is_made_for_a_step(site: Site) -> None:
    step = site.run("/bin/busybox pwd", cwd="/srv/link/new/dir")
    solved = site.solve(step)
    assert b"srv/real/new/dir" in site.layer(solved.outputs[0][-1])


def test_proxy_values_reach_the_step_and_not_the_key(site: Site) -> None:
    step = site.run("echo $http_proxy", proxies=(("http_proxy", "http://secret"),))
    site.solve(step)
    assert site.output(step) == b"http://secret\n"
    assert site.solve(site.run("echo $http_proxy")).ran == 0


# Parallel, failing, cancelled ---------------------------------------------------------------


def test_four_independent_stages_run_at_the_same_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [site.run(f"echo up; echo {n} > /out{n}", exported=False) for n in range(4)]
    actions = tuple(CopyAction(n + 1, (f"/out{n}",), "/out/") for n in range(4))
    target = site.vertex(FileOp(actions), site.image, *stages)
    met, emit = threading.Barrier(4, timeout=60), site.emit

    def meet(event: Event) -> None:
        if isinstance(event, VertexLog) and event.data == b"up\n":
            met.wait()  # each step's output is read when all have begun
        emit(event)

    monkeypatch.setattr(site, "emit", meet)
    solved = site.solve(target, *stages)
    assert sorted(site.layer(solved.outputs[0][-1])) == [
        b"out", b"out/out0", b"out/out1", b"out/out2", b"out/out3"
    ]  # fmt: skip


def test_failing_step_says_what_and_where_and_keeps_earlier_steps(site: Site) -> None:
    first = site.run("touch /first")
    bad = site.run("echo to-out; echo to-err >&2; exit 3", first, span=SPAN)
    last = site.run("true", bad)
    with pytest.raises(StepFailed) as caught:
        site.solve(last, first, bad)
    error = caught.value
    assert error.kind is Kind.STEP_FAILED
    assert error.status == 3
    assert error.what == (
        'process "/bin/sh -c echo to-out; echo to-err >&2; exit 3" '
        "did not complete successfully: exit code: 3"
    )
    assert str(error).startswith("Dockerfile:2: process")
    assert sorted(error.output.split()) == [b"to-err", b"to-out"]
    assert site.outcomes() == [RAN, Outcome.FAILED, Outcome.CANCELLED]
    assert site.leftovers() == []
    assert site.solve(first).ran == 0


def test_failing_stage_stops_the_others(site: Site) -> None:
    slow = site.run("sleep 600", exported=False)  # longer than a test may take
    bad = site.run("exit 1", exported=False)
    actions = tuple(CopyAction(n + 1, ("/x",), "/out/") for n in range(2))
    target = site.vertex(FileOp(actions), site.image, slow, bad)
    with pytest.raises(StepFailed):
        site.solve(target, slow, bad)
    assert sorted(o.value for o in site.outcomes()) == ["cancelled", "cancelled", "failed"]


def test_cancelled_build_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = CancelToken()
    emit = site.emit

    def cancel(event: Event) -> None:
        if isinstance(event, VertexLog):
            token.cancel()
        emit(event)

    monkeypatch.setattr(site, "emit", cancel)
    with pytest.raises(Cancelled):
        site.solve(site.run("echo up; sleep 600"), cancel=token)
    assert site.outcomes() == [Outcome.CANCELLED]
    assert site.leftovers() == []


def test_missing_source_shows_the_line_before_anything_runs(site: Site) -> None:
    first = site.run("touch /first")
    with pytest.raises(SourceError) as caught:
        site.solve(site.copy("/nope", to="/", base=first, span=SPAN), first)
    assert caught.value.kind is Kind.NOT_FOUND
    assert str(caught.value).startswith('Dockerfile:2: "/nope": not found\n')
    assert RAN not in site.outcomes()


def test_missing_source_in_a_stage_shows_the_line(site: Site) -> None:
    stage = site.run("true", exported=False)
    with pytest.raises(SourceError, match='"/nope": not found'):
        site.solve(site.copy("/nope", to="/", source=stage, span=SPAN), stage)


def test_copying_from_nothing_finds_nothing(site: Site) -> None:
    copied = site.vertex(FileOp((CopyAction(1, ("/x",), "/"),)), site.image, None)
    with pytest.raises(LaminaError, match='"/x": not found'):
        site.solve(copied)


def test_context_that_does_not_exist_is_named(site: Site) -> None:
    site.context.rmdir()
    with pytest.raises(LaminaError, match="cannot open the build context") as caught:
        site.solve(site.copy(".", to="/"))
    assert caught.value.kind is Kind.NOT_FOUND


def test_step_without_an_executor_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> object:
        raise LaminaError("no OCI runtime works here", kind=Kind.SYSTEM)

    monkeypatch.setattr(site, "executor", none)
    with pytest.raises(LaminaError, match="no OCI runtime works here"):
        site.solve(site.run("true"))
    assert site.outcomes() == [Outcome.FAILED]


def test_record_whose_layers_are_gone_is_a_reported_miss(site: Site) -> None:
    (site.context / "f").write_text("f")
    copied = site.copy("f", to="/")
    first = site.solve(copied)
    record = site.store.metadata.get_layer(first.outputs[0][-1])
    assert record is not None
    site.store.content.delete(record.blobs[0].digest)
    assert site.solve(copied) == first.__class__(first.outputs, 1, 0)
    notices = [event.message for event in site.events if isinstance(event, Notice)]
    assert notices == ["cached layers of / are gone: it runs again"]


def test_the_first_solve_of_a_changing_file_never_records_other_bytes(site: Site) -> None:
    """A writer changes the file all the time: each solve fails, or its layer has what it hashed."""
    path = site.context / "busy"
    path.write_bytes(b"0" * 100_000)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with path.open("r+b") as file:
                file.write(str(number % 10).encode() * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    results = set()
    kinds: set[Kind] = set()
    try:
        for _ in range(20):
            try:
                results.add(site.solve(site.copy("busy", to="/")).outputs[0][-1])
            except LaminaError as error:
                kinds.add(error.kind)
    finally:
        stop.set()
        writer.join()
    assert kinds <= {Kind.CONFLICT}
    path.write_bytes(b"x" * 100_000)
    final = site.solve(site.copy("busy", to="/")).outputs[0][-1]
    assert site.layer(final)[b"busy"][1] == b"x" * 100_000
    assert final not in results


def test_capabilities_of_a_file_are_copied(site: Site) -> None:
    path = site.context / "tool"
    path.write_bytes(b"tool")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    solved = site.solve(site.copy("tool", to="/"))
    entry = site.layer(solved.outputs[0][-1])[b"tool"][0]
    assert dict(entry.xattrs)[b"security.capability"] == capability


def test_add_unpacks_an_archive_and_a_step_sees_it(site: Site) -> None:
    source = site.root / "packed"
    (source / "srv" / "real").mkdir(parents=True)
    (source / "srv" / "real" / "new").write_text("new\n")
    subprocess.run(["tar", "-C", source, "-czf", site.context / "a.tgz", "srv"], check=True)
    added = site.copy("a.tgz", to="/", unpack=True)
    step = site.run("cat /srv/real/new; ls /srv/file", added)
    site.solve(step, added)
    assert site.output(step) == b"new\n/srv/file\n"


def test_several_actions_share_one_layer(site: Site) -> None:
    (site.context / "f").write_text("f")
    both = site.files(MkdirAction("/w", owner="app"), CopyAction(1, ("f",), "/w/"))
    solved = site.solve(both)
    layer = site.layer(solved.outputs[0][-1])
    assert (layer[b"w"][0].uid, layer[b"w"][0].type) == (1000, EntryType.DIR)
    assert list(layer) == [b"w", b"w/f"]


def test_sibling_files_of_the_base_survive(site: Site) -> None:
    (site.context / "f").write_text("f")
    solved = site.solve(site.copy("f", to="/home/app/"))
    layer = site.layer(solved.outputs[0][-1])
    home = layer[b"home/app"][0]
    assert (home.mode, home.uid, home.gid) == (0o700, 1000, 1001)
    assert site.read(solved.outputs[0], "/srv/file") == b"old\n"


_BUILD = """
import sys, time
from lamina.builder.build import Providers, Solve
from lamina.builder.options import SolveOptions
from lamina.container.executor import RuntimeExecutor
from lamina.container.runtime import find_runtime
from lamina.plan.graph import Edge, VertexMeta, needed, vertex
from lamina.plan.ops import Exec, ImageSource
from lamina.spec.digest import DiffID, Digest
from lamina.store import open_store
from lamina.tasks import CancelToken, Work
root, state, base = sys.argv[1:]
image = vertex(
    ImageSource("docker.io/library/b:1", Digest.of(b"m"), (DiffID(Digest.parse(base)),),
                "linux/amd64"), meta=VertexMeta("FROM b"))
step = vertex(Exec(("/bin/sh", "-c", "sleep 0.5; stat /proc/self > /when"), (("PATH", "/bin"),),
                   "/", network="none"), [Edge(image.digest)], meta=VertexMeta("step"))
store = open_store(root)
with RuntimeExecutor(find_runtime(root), state_dir=state) as executor, store.lease("test"):
    solved = Solve(needed([image, step], [Edge(step.digest)]), store=store, contexts={},
                   options=SolveOptions(), providers=Providers(lambda: executor),
                   work=Work(lambda event: None, CancelToken(), time.time)).run()
print(solved.ran, solved.outputs[0][-1])
"""


def test_snapshots_of_killed_builds_are_removed_by_the_next(site: Site) -> None:
    snapshots = site.store.snapshots
    kept = working_key("build:0123456789ab")
    for name in ("build:0123456789ab@999999999-1-1", kept):
        snapshots.prepare(name, None)
    site.solve(site.run("true"))
    assert [s.name for s in snapshots.walk() if not s.committed] == [kept]
    snapshots.remove(kept)


def test_two_processes_do_one_step_once(site: Site) -> None:
    site.solve(site.run("true"))
    base = str(site.image.op.diff_ids[0])
    script = f"import sys; sys.path[:0] = {sys.path!r}\n{_BUILD}"
    command = [sys.executable, "-c", script, site.store.root, str(site.root / "state"), base]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert sorted(ran for ran, _ in said) == ["0", "0", "1"]
    assert len({diff_id for _, diff_id in said}) == 1


def test_every_vertex_ends_once(site: Site) -> None:
    (site.context / "f").write_text("f")
    copied = site.copy("f", to="/")
    plan = site.plan(copied)
    site.solve(copied)
    done = [event.vertex for event in site.events if isinstance(event, VertexDone)]
    assert sorted(map(str, done)) == sorted(str(v.digest) for v in plan.vertices)


_CACHED = """
import sys, time
from lamina.builder.build import Providers, Solve
from lamina.builder.options import SolveOptions
from lamina.builder.context import Context
from lamina.plan.graph import Edge, VertexMeta, needed, vertex
from lamina.plan.ops import CopyAction, FileOp, ImageSource, LocalSource
from lamina.spec.digest import DiffID, Digest
from lamina.store import open_store
from lamina.tasks import CancelToken, Work
root, context, base = sys.argv[1:]
image = vertex(
    ImageSource("docker.io/library/b:1", Digest.of(b"m"), (DiffID(Digest.parse(base)),),
                "linux/amd64"), meta=VertexMeta("FROM b"))
source = vertex(LocalSource("context"), meta=VertexMeta("context"))
copied = vertex(FileOp((CopyAction(1, ("f",), "/"),)), [Edge(image.digest), Edge(source.digest)],
                meta=VertexMeta("/"))
store = open_store(root)
solved = Solve(needed([image, source, copied], [Edge(copied.digest)]), store=store,
               contexts={"context": Context(context)}, options=SolveOptions(),
               providers=Providers(), work=Work(lambda event: None, CancelToken(), time.time)).run()
assert (solved.ran, solved.cached) == (0, 1), solved
heavy = ("threading", "ctypes", "tarfile", "subprocess", "queue", "lamina.layer.tarwrite",
         "lamina.layer.create", "lamina.layer.compress", "lamina.container.ports", "typing",
         "lamina.image.unpack", "lamina.layer.apply", "dataclasses", "http.client")
print(*[name for name in heavy if name in sys.modules])
"""


def test_cached_solve_imports_nothing_heavy(site: Site) -> None:
    (site.context / "f").write_text("f")
    site.solve(site.copy("f", to="/"))
    base = str(site.image.op.diff_ids[0])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{_CACHED}",
         site.store.root, str(site.context), base],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"
