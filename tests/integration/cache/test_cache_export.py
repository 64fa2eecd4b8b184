# SPDX-License-Identifier: Apache-2.0
"""`--cache-to` and `--cache-from`: caches that travel between stores, and what may go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lamina.testing.command import Lamina
from lamina.testing.registries import distribution
from lamina.testing.registry import RegistryServer, registry
from lamina.testing.waiting import wait_until

__all__ = ["registry"]

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

DOCKERFILE = """\
FROM busybox AS made
COPY a /a
RUN echo made > /made
FROM busybox
COPY --from=made /made /made
RUN cat /made > /copied
"""


class Bench:
    """One build context and any number of stores; `first` has built it, others are empty."""

    def __init__(self, place: Path, busybox_store: Path) -> None:
        self.place = place
        self.app = place / "app"
        self.first = Lamina(place / "first", place)
        self.cache = place / "cache"
        self._busybox_store = busybox_store

    def store(self, name: str, *, has_base: bool = False) -> Lamina:
        if has_base:
            subprocess.run(["cp", "-a", self._busybox_store, self.place / name], check=True)
        return Lamina(self.place / name, self.place)

    def export(self, *words: str) -> None:
        self.first("build", "-t", "app", "--cache-to", *words, "app")

    def outcomes(self, lamina: Lamina, *words: str) -> tuple[dict[str, str], str]:
        """How each step ended, by its instruction, and what was told."""
        done = lamina("build", "-t", "app", "--progress=json", *words, "app")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        names = {e["vertex"]: e["name"] for e in events if e["event"] == "VertexPlanned"}
        ends = [e for e in events if e["event"] == "VertexDone"]
        assert not [e for e in ends if e["outcome"] in {"failed", "cancelled"}], done.stderr
        found = {names[e["vertex"]].partition("] ")[2]: e["outcome"] for e in ends}
        return found, done.stderr

    def ran(self, lamina: Lamina, *words: str) -> set[str]:
        return {name for name, how in self.outcomes(lamina, *words)[0].items() if how == "ran"}

    def layers(self, lamina: Lamina) -> str:
        return lamina("inspect", "--format", "{{json .RootFS.Layers}}", "app").stdout

    def blobs(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (self.cache / "blobs").rglob("*")}

    def document(self) -> tuple[Path, Path]:
        """The manifest's file and the document's."""
        index = json.loads((self.cache / "index.json").read_text())
        manifest = self.blob(index["manifests"][0]["digest"])
        return manifest, self.blob(json.loads(manifest.read_text())["config"]["digest"])

    def blob(self, digest: str) -> Path:
        return self.cache / "blobs" / digest.replace(":", "/")

    def layer_of(self, diff_id: str) -> Path:
        pairs = json.loads(self.document()[1].read_text())["layers"]
        return self.blob(dict(pairs)[diff_id])


LOCAL = "type=local,dest=cache"
FROM_LOCAL = ("--cache-from", "type=local,src=cache")


@pytest.fixture(scope="module")
def exported(busybox_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A context, the store that built it, and its cache with every step."""
    place = tmp_path_factory.mktemp("exported")
    app = place / "app"
    app.mkdir()
    (app / "a").write_text("a\n")
    (app / "Dockerfile").write_text(DOCKERFILE)
    bench = Bench(place, busybox_store)
    bench.store("first", has_base=True)
    bench.export(f"{LOCAL},mode=max")
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def bench(tmp_path: Path, busybox_store: Path, exported: Path) -> Iterator[Bench]:
    """What was exported, the test's own."""
    for name in ("app", "first", "cache"):
        subprocess.run(["cp", "-a", exported / name, tmp_path], check=True)
    yield Bench(tmp_path, busybox_store)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_empty_store_has_a_full_hit_offline(bench: Bench) -> None:
    second = bench.store("second")
    ends, told = bench.outcomes(second, *FROM_LOCAL)
    assert set(ends.values()) == {"cached"}, told
    assert "importing cache manifest from" in told
    assert bench.layers(second) == bench.layers(bench.first)
    assert second("run", "--rm", "app", "cat", "/copied").stdout == "made\n"
    assert "imported from the cache" in second("why").stdout
    # records and layers are the store's own now
    _top_layer(bench).unlink()
    assert bench.ran(second, *FROM_LOCAL) == set()


def test_min_has_the_layers_of_the_result_only(bench: Bench) -> None:
    bench.export(LOCAL)
    names = [r["name"] for r in json.loads(bench.document()[1].read_text())["records"]]
    assert names
    assert not any(name.startswith("[made ") for name in names)
    assert bench.ran(bench.store("second"), *FROM_LOCAL) == set()


def test_steps_after_a_change_run_and_the_cause_is_told(bench: Bench) -> None:
    (bench.app / "a").write_text("other\n")
    second = bench.store("second")
    ran = bench.ran(second, *FROM_LOCAL)
    # what the stage gives is the same: its keys by content travel, so the copy of it is cached
    assert ran == {"COPY a /a", "RUN echo made > /made"}
    why = second("why").stdout
    assert "a: " in why or "/a" in why or " a " in why
    assert "compared with the cache" in why


def test_store_without_need_does_not_ask(bench: Bench) -> None:
    _, told = bench.outcomes(bench.first, "--cache-from", "127.0.0.1:1/none:x")
    assert "importing" not in told


def test_second_export_sends_nothing_new(bench: Bench) -> None:
    before = {path: path.stat().st_ino for path in (bench.cache / "blobs").rglob("*")}
    index = (bench.cache / "index.json").read_bytes()
    bench.export(f"{LOCAL},mode=max")
    assert {path: path.stat().st_ino for path in (bench.cache / "blobs").rglob("*")}.keys() == (
        before.keys()
    )
    assert (bench.cache / "index.json").read_bytes() == index
    layers = [bench.layer_of(d) for d in json.loads(bench.layers(bench.first))]
    assert all(path.stat().st_ino == before[path] for path in layers)


def test_zstd_and_docker_index(bench: Bench) -> None:
    bench.export(
        f"{LOCAL},mode=max,compression=zstd,force-compression=true,oci-mediatypes=false,tag=t"
    )
    manifest = json.loads((bench.cache / "index.json").read_text())["manifests"][-1]
    listed = json.loads(bench.blob(manifest["digest"]).read_text())["manifests"]
    kinds = {entry["mediaType"] for entry in listed if "docker" in entry["mediaType"]}
    assert kinds == {"application/vnd.docker.image.rootfs.diff.tar.zstd"}
    assert bench.ran(bench.store("second"), "--cache-from", "type=local,src=cache,tag=t") == set()
    digest = ("--cache-from", f"type=local,src=cache,digest={manifest['digest']}")
    assert bench.ran(bench.store("third"), *digest) == set()


@pytest.mark.parametrize(
    "kind",
    ["lamina", pytest.param("distribution", marks=pytest.mark.tool("docker-registry"))],
)
def test_registry(bench: Bench, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "lamina":
        server: RegistryServer = request.getfixturevalue("registry")
        _through_registry(bench, server.host)
    else:
        with distribution(bench.place / "distribution") as found:
            _through_registry(bench, found.host)


def _through_registry(bench: Bench, host: str) -> None:
    ref = f"{host}/cache:x"
    bench.export(f"type=registry,ref={ref},mode=max")
    second = bench.store("second")
    assert bench.ran(second, "--cache-from", ref) == set()
    assert bench.layers(second) == bench.layers(bench.first)
    # as an index, from the imported store to another tag: only documents travel
    again = f"type=registry,ref={host}/cache:y,image-manifest=false"
    second("build", "--cache-from", ref, "--cache-to", again, "app")
    assert bench.ran(bench.store("third"), "--cache-from", f"{host}/cache:y") == set()


def test_inline_cache_is_in_the_pushed_image(bench: Bench, registry: RegistryServer) -> None:
    ref = f"{registry.host}/app:inline"
    bench.first("build", "-t", ref, "--push", "--cache-to", "type=inline", "app")
    second = bench.store("second", has_base=True)
    assert bench.ran(second, "--cache-from", f"type=registry,ref={ref}") == set()
    # an image on top of it does not inherit the records
    (bench.app / "Dockerfile").write_text(f"FROM {ref}\nRUN true\n")
    bench.first("build", "-t", "above", "app")
    manifest = bench.first("save", "above", "-o", "above.tar")
    assert manifest.returncode == 0
    assert b"lamina.buildcache.v1" not in (bench.place / "above.tar").read_bytes()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _manifest(bench: Bench) -> Path:
    return bench.document()[0]


def _config(bench: Bench) -> Path:
    return bench.document()[1]


def _top_layer(bench: Bench) -> Path:
    return bench.layer_of(json.loads(bench.layers(bench.first))[-1])


@pytest.mark.parametrize("part", [_manifest, _config, _top_layer])
@pytest.mark.parametrize("damage", [_flip, Path.unlink])
def test_damaged_cache_is_a_reported_miss(
    bench: Bench, part: Callable[[Bench], Path], damage: Callable[[Path], None]
) -> None:
    damage(part(bench))
    second = bench.store("second", has_base=True)
    ends, told = bench.outcomes(second, *FROM_LOCAL)
    assert "is not used" in told
    assert ends["RUN cat /made > /copied"] == "ran"
    if part is _top_layer:
        assert ends["COPY --from=made /made /made"] == "cached"
    assert second("run", "--rm", "app", "cat", "/copied").stdout == "made\n"


def _rewrite(bench: Bench, change: Callable[[dict[str, Any]], None]) -> None:
    """Put a whole, well signed cache in place whose records someone has changed."""
    manifest, config = bench.document()
    document = json.loads(config.read_text())
    for each in document["records"]:
        change(each)
    rows = [json.loads(manifest.read_text()), json.loads((bench.cache / "index.json").read_text())]
    raws = [json.dumps(document).encode()]
    for outer, place in ((rows[0], rows[0]["config"]), (rows[1], rows[1]["manifests"][0])):
        digest = hashlib.sha256(raws[-1]).hexdigest()
        (bench.cache / "blobs/sha256" / digest).write_bytes(raws[-1])
        place.update(digest=f"sha256:{digest}", size=len(raws[-1]))
        raws.append(json.dumps(outer).encode())
    (bench.cache / "index.json").write_bytes(raws[-1])


def _no_layers(record: dict[str, Any]) -> None:
    record["result"] = -1


def _other_layers(record: dict[str, Any]) -> None:
    record["result"] = 0


@pytest.mark.parametrize("change", [_no_layers, _other_layers])
def test_results_that_the_step_cannot_have_are_a_reported_miss(
    bench: Bench, change: Callable[[dict[str, Any]], None]
) -> None:
    _rewrite(bench, change)
    second = bench.store("second", has_base=True)
    ends, told = bench.outcomes(second, *FROM_LOCAL)
    assert "has such layers" in told
    assert ends["RUN cat /made > /copied"] == "ran"
    assert second("run", "--rm", "app", "cat", "/copied").stdout == "made\n"


def test_key_trees_of_another_form_fail_no_build(bench: Bench) -> None:
    strange = {"op": {"type": "FileOp", "actions": 7}, "sources": 5, "about": {"images": 4}}
    _rewrite(bench, lambda record: record.update(tree=json.dumps(strange)))
    (bench.app / "a").write_text("another\n")
    ran = bench.ran(bench.store("second", has_base=True), *FROM_LOCAL)
    assert "COPY a /a" in ran


def test_base_layer_that_no_cache_has_is_missed_by_name(bench: Bench) -> None:
    bench.layer_of(json.loads(bench.layers(bench.first))[0]).unlink()
    done = bench.store("second")("build", *FROM_LOCAL, "app", check=False)
    assert done.returncode == 7  # no registry answers
    assert "busybox" in done.stderr


def test_dead_registry(bench: Bench) -> None:
    dead = "127.0.0.1:1/cache:x"
    (bench.app / "a").write_text("new\n")
    _, told = bench.outcomes(bench.first, "--cache-from", dead)
    assert f"the cache {dead} is not used" in told
    failed = bench.first(
        "build", "-t", "n", "--cache-to", f"type=registry,ref={dead}", "app", check=False
    )
    assert failed.returncode == 7
    assert f"exporting cache to {dead}" in failed.stderr
    assert "n" not in bench.first("images", "--format", "{{.Repository}}").stdout.split()
    ignored = bench.first(
        "build", "--cache-to", f"type=registry,ref={dead},ignore-error=true", "app"
    )
    assert "was not exported" in ignored.stderr


def test_read_only_directory_and_several_sources(bench: Bench) -> None:
    second = bench.store("second")
    words = second.argv("build", "--cache-from", "type=local,src=none", *FROM_LOCAL, "app")
    script = 'mount --bind cache cache && mount -o remount,bind,ro cache && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", *words],
        env=second.env, cwd=second.cwd, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "DONE" not in done.stderr
    assert "none is not used" in done.stderr


def test_two_exports_to_one_directory(bench: Bench) -> None:
    other = bench.store("other")
    subprocess.run(["cp", "-a", str(bench.first.root), str(other.root)], check=True)
    running = [
        subprocess.Popen(
            lamina.argv("build", "--cache-to", f"{LOCAL},mode=max,tag={tag}", "app"),
            env=lamina.env, cwd=lamina.cwd, stderr=subprocess.PIPE, text=True,
        )
        for lamina, tag in ((bench.first, "x"), (other, "y"))
    ]  # fmt: skip
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    for number, tag in enumerate("xy"):
        source = f"type=local,src=cache,tag={tag}"
        assert bench.ran(bench.store(f"empty{number}"), "--cache-from", source) == set()


def test_killed_export_leaves_the_old_cache(bench: Bench) -> None:
    index = (bench.cache / "index.json").read_bytes()
    (bench.app / "a").write_bytes(os.urandom(48 << 20))
    process = subprocess.Popen(
        bench.first.argv("build", "--cache-to", f"{LOCAL},mode=max", "app"),
        env=bench.first.env, cwd=bench.first.cwd, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    blobs = bench.cache / "blobs"
    wait_until(lambda: any(blobs.rglob("*.new")), "an export", pause=0.001, process=process)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert (bench.cache / "index.json").read_bytes() == index
    (bench.app / "a").write_text("a\n")
    assert bench.ran(bench.store("second"), *FROM_LOCAL) == set()


def test_secret_and_place_are_not_exported(bench: Bench) -> None:
    (bench.place / "token").write_text("hunter2secret")
    (bench.app / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=token test -s /run/secrets/token && echo k > /k\n"
    )
    shutil.rmtree(bench.cache)
    bench.first("build", "--secret", "id=token,src=token", "--cache-to", f"{LOCAL},mode=max", "app")
    assert _config(bench).exists()
    for path in bench.cache.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"hunter2secret" not in data
        assert str(bench.place).encode() not in data


def test_buildkit_cache_is_refused_by_name(bench: Bench) -> None:
    manifest, _ = bench.document()
    changed = manifest.read_bytes().replace(
        b"application/vnd.lamina.buildcache.config.v1+json",
        b"application/vnd.buildkit.cacheconfig.v0",
    )
    index = json.loads((bench.cache / "index.json").read_text())
    digest = hashlib.sha256(changed).hexdigest()
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(changed)}
    bench.blob(f"sha256:{digest}").write_bytes(changed)
    (bench.cache / "index.json").write_text(json.dumps(index))
    (bench.app / "a").write_text("new\n")
    _, told = bench.outcomes(bench.first, *FROM_LOCAL)
    assert "it is BuildKit's cache" in told


def test_bake_targets_have_caches(bench: Bench) -> None:
    (bench.app / "docker-bake.hcl").write_text(
        'target "default" {\n  cache-to = ["type=local,dest=../cache,mode=max"]\n'
        '  cache-from = ["type=local,src=../cache"]\n  tags = ["app"]\n}\n'
    )
    shutil.rmtree(bench.cache)
    bench.first.cwd = bench.app
    bench.first("bake")
    bench.first.cwd = bench.place
    second = bench.store("second")
    second.cwd = bench.app
    done = second("bake", "--progress=plain")
    assert "DONE" not in done.stderr
    assert "CACHED" in done.stderr


def test_layer_damaged_below_a_step_that_runs(bench: Bench) -> None:
    below = bench.layer_of(json.loads(bench.layers(bench.first))[-2])
    _flip(below)
    with (bench.app / "Dockerfile").open("a") as file:
        file.write("RUN cat /copied /made > /more\n")
    second = bench.store("second", has_base=True)
    ends, told = bench.outcomes(second, *FROM_LOCAL)
    assert "building without its layers" in told
    assert {name for name, how in ends.items() if how == "ran"} == {
        "COPY --from=made /made /made",
        "RUN cat /made > /copied",
        "RUN cat /copied /made > /more",
    }
    assert second("run", "--rm", "app", "cat", "/more").stdout == "made\nmade\n"
    for path in (second.root / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_linked_copies_and_empty_results(bench: Bench) -> None:
    (bench.app / "Dockerfile").write_text(
        "FROM scratch AS none\nFROM busybox\nCOPY --link a /linked\nRUN cat /linked > /read\n"
    )
    bench.export(LOCAL)
    assert bench.ran(bench.store("second"), *FROM_LOCAL) == set()
    (bench.app / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    bench.export(LOCAL)
    assert bench.ran(bench.store("third"), *FROM_LOCAL) == set()
