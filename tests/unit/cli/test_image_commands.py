# SPDX-License-Identifier: Apache-2.0
"""images, history, inspect, tag, rmi, save, load, import: what they print and refuse."""

from __future__ import annotations

import io
import json
import tarfile
import time

import pytest

from lamina.errors import EXIT_STATUS, Kind
from lamina.image.resolve import find_image
from lamina.store import open_store
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.cli.conftest import World

APP = "docker.io/library/app:latest"


def rootfs_tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, data in (("bin/tool", b"tool"), ("etc/conf", b"conf")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def test_images_prints_dockers_columns(world: World) -> None:
    id = world.make("x", APP, "example.org/team/tool:2")
    lines = world.ok("images").splitlines()
    assert lines[0].split("  ")[0] == "REPOSITORY"
    assert [line.split() for line in lines] == [
        ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"],
        ["app", "latest", id[7:19], "3", "days", "ago", "2.56kB"],
        ["example.org/team/tool", "2", id[7:19], "3", "days", "ago", "2.56kB"],
    ]
    assert "DIGEST" in world.ok("images", "--digests").splitlines()[0]
    assert world.ok("images", "-q", "--no-trunc", "app") == f"{id}\n"
    row = json.loads(world.ok("images", "--format", "json", "app"))
    assert (row["Repository"], row["Tag"], row["ID"]) == ("app", "latest", id[7:19])
    assert row["CreatedAt"] == "2023-11-14 22:13:20 +0000 UTC"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["app"], ["app:1", "app:2"]),
        (["app:1"], ["app:1"]),
        (["ap*"], ["app:1", "app:2"]),
        (["docker.io/library/app"], ["app:1", "app:2"]),
        (["*/*/tool"], ["example.org/team/tool:2"]),
        (["nosuch"], []),
        (
            ["-f", "reference=app:2", "-f", "reference=*/*/tool"],
            ["app:2", "example.org/team/tool:2"],
        ),
        (["-f", "dangling=true"], ["<none>:<none>"]),
        (["-f", "dangling=false"], ["app:1", "app:2", "example.org/team/tool:2"]),
        (["-f", "label=a"], []),
        (["-f", "since=app:1"], []),
    ],
)
def test_images_filters(world: World, argv: list[str], names: list[str]) -> None:
    world.make("x", "docker.io/library/app:1", "docker.io/library/app:2")
    world.make("y", "example.org/team/tool:2")
    world.make("z")
    out = world.ok("images", "--format", "{{.Repository}}:{{.Tag}}", *argv)
    assert sorted(out.split()) == names


def test_images_filters_by_label_and_age(world: World) -> None:
    world.ok("import", "-c", "LABEL a=1", "-", "labelled", stdin=rootfs_tar())
    world.make("x", APP)
    assert world.ok("images", "-q", "-f", "label=a=1") == world.ok("images", "-q", "labelled")
    assert world.ok("images", "-q", "-f", "label=a=2") == ""
    assert world.ok("images", "-q", "-f", "before=labelled") == world.ok("images", "-q", "app")
    assert world.ok("images", "-q", "-f", "since=app") == world.ok("images", "-q", "labelled")


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        (["-f", "nonsense"], Kind.USAGE),
        (["-f", "nosuch=1"], Kind.USAGE),
        (["-f", "dangling=maybe"], Kind.USAGE),
        (["-f", "before=nosuch"], Kind.NOT_FOUND),
        (["--format", "{{.Nope}}"], Kind.USAGE),
        (["--tree"], Kind.UNSUPPORTED),
    ],
)
def test_images_refuses(world: World, argv: list[str], kind: Kind) -> None:
    world.make("x", APP)
    world.fails(kind, "images", *argv)


def test_history_is_newest_first(world: World) -> None:
    id = world.make("x", APP)
    assert world.ok("history", "app").splitlines()[1].split()[:4] == [id[7:19], "3", "days", "ago"]
    assert world.ok("history", "-q", "--no-trunc", "app") == f"{id}\n"
    assert world.ok(
        "history", "--human=false", "--format", "{{.Size}} {{.CreatedSince}}", "app"
    ) == ("2560 2023-11-14T22:13:20Z\n")
    world.fails(Kind.NOT_FOUND, "history", "nosuch")


def test_inspect_has_dockers_fields(world: World) -> None:
    id = world.make("x", APP)
    (document,) = json.loads(world.ok("inspect", "app"))
    assert document["Id"] == id
    assert document["RepoTags"] == ["app:latest"]
    assert document["Config"]["Cmd"] == ["x"]
    assert len(document["RootFS"]["Layers"]) == 1
    assert world.ok("inspect", "-f", "{{.Id}} {{json .Config.Cmd}}", id[7:15]) == f'{id} ["x"]\n'
    assert world.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "app") == "linux/amd64\n"


def test_inspect_prints_what_it_found_and_fails_for_the_rest(world: World) -> None:
    world.make("x", APP)
    status, out, err = world.run("inspect", "nosuch", "app")
    assert status == EXIT_STATUS[Kind.NOT_FOUND]
    assert [document["RepoTags"] for document in json.loads(out)] == [["app:latest"]]
    assert "nosuch" in err
    world.fails(Kind.NOT_FOUND, "inspect", "--type", "container", "app")
    world.fails(Kind.NOT_FOUND, "inspect", "--type", "network", "app")
    world.fails(Kind.USAGE, "inspect", "--type", "plugin", "app")
    world.fails(Kind.NOT_FOUND, "inspect", "--type", "volume", "app")
    world.fails(Kind.NOT_FOUND, "inspect", "Not/A:valid:name")


def test_inspect_of_a_kind_finds_that_kind_only(world: World) -> None:
    image = world.make("x", APP, "docker.io/library/both:latest")
    containers = {name: world.make_container(name, image) for name in ("web", "both")}
    id = ("-f", "{{.Id}}")
    for words in (["image", "inspect"], ["inspect", "--type", "image"]):
        assert world.ok(*words, *id, "both") == f"{image}\n"
        assert 'image "web" not found' in world.fails(Kind.NOT_FOUND, *words, "web")
    for words in (["container", "inspect"], ["inspect", "--type", "container"]):
        assert world.ok(*words, *id, "both") == f"{containers['both']}\n"
        assert "No such container: app" in world.fails(Kind.NOT_FOUND, *words, "app")
    assert world.ok("inspect", *id, "both", "app").split() == [containers["both"], image]


def test_inspect_of_a_kind_has_the_flags_of_that_kind(world: World) -> None:
    for words in (["image", "inspect", "--size"], ["container", "inspect", "--platform", "x"]):
        assert f"unknown flag: {words[2]}" in world.fails(Kind.USAGE, *words, "app")
    for group in ("image", "container"):
        assert "unknown flag: --type" in world.fails(
            Kind.USAGE, group, "inspect", "--type", "image"
        )


def test_inspect_of_nothing_says_what_lists_what_there_is(world: World) -> None:
    world.make("x", APP)
    err = world.fails(Kind.NOT_FOUND, "inspect", "nosuch")
    assert "No such object: nosuch" in err
    assert "pull" not in err
    assert "'lamina images' and 'lamina ps -a'" in err
    assert "'lamina pull'" in world.fails(Kind.NOT_FOUND, "image", "inspect", "nosuch")
    assert "pull" not in world.fails(Kind.NOT_FOUND, "container", "inspect", "nosuch")


def test_inspect_names_each_that_is_not_there(world: World) -> None:
    err = world.fails(Kind.NOT_FOUND, "inspect", "nosuch", "neither")
    assert "No such object: nosuch" in err
    assert "No such object: neither" in err


def test_inspect_of_an_ambiguous_id_is_not_called_missing(world: World) -> None:
    seen: dict[str, str] = {}
    for content in map(str, range(17)):  # two of 17 ids begin with the same digit
        id = world.make(content).removeprefix("sha256:")
        if id[0] in seen:
            break
        seen[id[0]] = id
    assert "No such object" not in world.fails(Kind.INVALID, "inspect", id[0])


def test_tag_moves_names_and_leaves_dangling_images(world: World) -> None:
    old, new = world.make("old", APP), world.make("new", "docker.io/library/other:1")
    assert world.ok("tag", "other:1", "app") == ""
    assert world.ok("inspect", "-f", "{{.Id}}", "app") == f"{new}\n"
    assert world.ok("images", "-q", "--no-trunc", "-f", "dangling=true") == f"{old}\n"
    world.ok("tag", old, "back:again")
    assert world.ok("images", "-q", "-f", "dangling=true") == ""
    world.fails(Kind.INVALID, "tag", "app", "UPPER")
    world.fails(Kind.USAGE, "tag", "app", f"x@{new}")
    world.fails(Kind.NOT_FOUND, "tag", "nosuch", "x")


def test_rmi_untags_and_deletes(world: World) -> None:
    world.clock = time.time  # what the collector removes must be older than its start
    id = world.make("x", APP, "docker.io/library/app:2")
    assert world.ok("rmi", "app:2") == "Untagged: app:2\n"
    assert world.ok("rmi", "app") == f"Untagged: app:latest\nDeleted: {id}\n"
    store = open_store(world.root)
    assert list(store.content.walk()) == []
    store.close()
    assert "nosuch" in world.fails(Kind.NOT_FOUND, "rmi", "nosuch")
    world.ok("rmi", "-f", "nosuch")


def test_rmi_by_id(world: World) -> None:
    id = world.make("x", APP)
    assert world.ok("rmi", id[7:17]).splitlines() == ["Untagged: app:latest", f"Deleted: {id}"]
    for other in ("docker.io/library/app:2", "docker.io/library/other:2"):
        id = world.make("x", APP, other)
        assert "multiple repositories" in world.fails(Kind.CONFLICT, "rmi", id[7:17])
        assert len(world.ok("rmi", "-f", id).splitlines()) == 3
        assert world.ok("images", "-q") == ""
    id = world.make("x")
    assert world.ok("rmi", id) == f"Deleted: {id}\n"


def test_rmi_by_digest_takes_the_name_that_has_it(world: World) -> None:
    id = world.make("x", APP)
    digest = world.digest_of("app")
    world.name(f"docker.io/library/app@{digest}", "app")
    assert world.ok("inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", "app") == (
        f"[app:latest] [app@{digest}]\n"
    )
    assert f"{digest}" in world.ok("images", "--digests").splitlines()[2]
    assert world.ok("images", "--format", "{{.Tag}}") == "latest\n<none>\n"
    assert world.ok("rmi", f"app@{digest}") == f"Untagged: app@{digest}\n"
    assert world.ok("images", "-q", "--no-trunc", "app") == f"{id}\n"
    world.name(f"docker.io/library/app@{digest}", "app")  # as Docker: one tag and its digest
    assert world.ok("rmi", id).splitlines() == [
        "Untagged: app:latest", f"Untagged: app@{digest}", f"Deleted: {id}",
    ]  # fmt: skip


def test_rmi_keeps_what_a_container_uses(world: World) -> None:
    id = world.make("x", APP)
    body = json.dumps({"image_id": id, "pins": []})
    store = open_store(world.root)
    store.documents.insert(Document("container", "c" * 64, "web", body, 0.0))
    store.close()
    for name in ("app", id):
        assert "c" * 12 in world.fails(Kind.CONFLICT, "rmi", name)
    assert world.ok("rmi", "-f", "app") == "Untagged: app:latest\n"
    store = open_store(world.root)
    assert str(find_image(store, id).id) == id
    store.close()


def test_rmi_goes_on_after_an_error(world: World) -> None:
    id = world.make("x", APP)
    status, out, err = world.run("rmi", "nosuch", "app", "neither")
    assert (status, out) == (3, f"Untagged: app:latest\nDeleted: {id}\n")
    assert "nosuch" in err
    assert "neither" in err


def test_save_and_load_through_files_and_pipes(world: World) -> None:
    ids = [world.make("x", APP, "docker.io/library/app:2"), world.make("y", "h.io/y:1")]
    status, piped, _ = world.run_bytes("save", "app", "h.io/y:1")
    assert status == 0
    world.ok("save", "-o", "saved.tar", "app", "h.io/y:1")
    assert (world.cwd / "saved.tar").read_bytes() == piped
    world.ok("save", "--format", "oci-archive", "-o", "oci.tar", "app:latest", ids[1])
    for argv, stdin, loaded in (
        (["-i", "saved.tar"], b"", ["app:2", "app:latest", "h.io/y:1"]),
        ([], piped, ["app:2", "app:latest", "h.io/y:1"]),
        (["-i", "oci.tar"], b"", ["app:latest"]),
    ):
        world.ok("rmi", "-f", *ids)
        out = world.ok("load", *argv, stdin=stdin).splitlines()
        assert out[: len(loaded)] == [f"Loaded image: {name}" for name in loaded]
    assert out[1:] == [f"Loaded image ID: {ids[1]}"]


def test_save_and_load_refuse_a_terminal_and_bad_input(world: World) -> None:
    world.make("x", APP)
    world.fails(Kind.NOT_FOUND, "save", "-o", "x.tar", "nosuch")
    assert not (world.cwd / "x.tar").exists()
    world.fails(Kind.USAGE, "save", "--format", "zip", "-o", "x", "app")
    world.fails(Kind.INVALID, "load", stdin=b"nonsense" * 1000)
    world.fails(Kind.NOT_FOUND, "load", "-i", "nosuch.tar")
    world.tty = True
    assert "terminal" in world.fails(Kind.USAGE, "save", "app")
    assert "terminal" in world.fails(Kind.USAGE, "load")
    assert "terminal" in world.fails(Kind.USAGE, "import", "-", "x")


def test_import_is_deterministic_with_an_epoch(world: World) -> None:
    world.env["SOURCE_DATE_EPOCH"] = "1700000000"
    (world.cwd / "r.tgz").write_bytes(rootfs_tar())
    first = world.ok("import", "r.tgz", "one")
    assert world.ok("import", "-", "two", stdin=rootfs_tar()) == first
    assert world.ok("inspect", "-f", "{{.Created}}", "one") == "2023-11-14T22:13:20Z\n"


def test_import_applies_changes(world: World) -> None:
    world.ok(
        "import", "-c", 'CMD ["a"]', "-c", "ENV X=1", "-m", "why", "--platform", "linux/arm64",
        "-", "app:1", stdin=rootfs_tar(),
    )  # fmt: skip
    text = "{{json .Config.Cmd}} {{.Config.Env}} {{.Architecture}} {{.Comment}}"
    assert world.ok("inspect", "-f", text, "app:1") == '["a"] [X=1] arm64 why\n'


def test_import_of_a_directory(world: World) -> None:
    (world.cwd / "tree" / "etc").mkdir(parents=True)
    (world.cwd / "tree" / "etc" / "conf").write_text("x")
    assert world.ok("import", "tree", "app").startswith("sha256:")


@pytest.mark.parametrize(
    ("argv", "stdin", "kind"),
    [
        (["https://example.org/x.tar", "x"], b"", Kind.UNSUPPORTED),
        (["nosuch.tar", "x"], b"", Kind.NOT_FOUND),
        (["-", "x"], b"junk" * 1000, Kind.INVALID),
        (["-", "UPPER"], rootfs_tar(), Kind.INVALID),
        (["-", "x"], rootfs_tar()[:-9], Kind.INTEGRITY),
        (["-c", "RUN x", "-", "x"], rootfs_tar(), Kind.INVALID),
        (["--platform", "pdp/11", "-", "x"], rootfs_tar(), Kind.INVALID),
    ],
)
def test_bad_imports_are_one_error_and_no_image(
    world: World, argv: list[str], stdin: bytes, kind: Kind
) -> None:
    world.fails(kind, "import", *argv, stdin=stdin)
    assert world.ok("images", "-q") == ""
