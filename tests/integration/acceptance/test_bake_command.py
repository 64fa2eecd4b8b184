# SPDX-License-Identifier: Apache-2.0
"""`bake` with the whole command: several targets, one graph."""

from __future__ import annotations

import json

import pytest

from lamina.testing.command import Lamina, write

pytest.importorskip("hcl2")
pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

DOCKERFILE = """FROM busybox AS shared
ARG GREETING=none
RUN cat /proc/sys/kernel/random/uuid > /id; echo $GREETING > /greeting
FROM shared AS one
COPY name /name
FROM shared AS two
RUN echo two > /name
"""
BAKE = """
variable "TAG" { default = "latest" }
group "default" { targets = ["one", "two", "other"] }
target "base" {
  context = "app"
  args = { GREETING = "hello" }
}
target "one" {
  inherits = ["base"]
  target = "one"
  tags = ["one:${TAG}"]
}
target "two" {
  inherits = ["base"]
  target = "two"
  tags = ["two:${TAG}"]
}
target "other" {
  context = "other"
  dockerfile-inline = "FROM busybox\\nCOPY name /name\\n"
  tags = ["other:${TAG}"]
}
"""


@pytest.fixture
def project(lamina: Lamina) -> Lamina:
    files = {
        "docker-bake.hcl": BAKE,
        "app/Dockerfile": DOCKERFILE,
        "app/name": "one\n",
        "other/name": "other\n",
    }
    write(lamina.cwd, files)
    return lamina


def cat(lamina: Lamina, image: str, path: str) -> str:
    return str(lamina("run", "--rm", image, "cat", path).stdout)


def test_stage_that_two_targets_share_runs_once(project: Lamina) -> None:
    done = project("bake", "--progress=json", "--metadata-file", "m.json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    names = [event["name"] for event in events if event["event"] == "VertexPlanned"]
    assert len([name for name in names if "uuid" in name]) == 1
    assert cat(project, "one", "/id") == cat(project, "two", "/id")
    assert cat(project, "one", "/greeting") == "hello\n"
    assert [cat(project, name, "/name") for name in ("one", "two", "other")] == [
        "one\n",
        "two\n",
        "other\n",
    ]
    found = json.loads((project.cwd / "m.json").read_text())
    assert sorted(found) == ["one", "other", "two"]
    assert found["one"]["containerimage.config.digest"] == project.id_of("one")


def test_second_bake_is_cached_and_gives_the_same_images(project: Lamina) -> None:
    project("bake")
    before = [project.id_of(name) for name in ("one", "two", "other")]
    again = project("bake")
    assert " DONE " not in again.stderr
    assert [project.id_of(name) for name in ("one", "two", "other")] == before
    project("bake", "one", "--no-cache")
    assert project.id_of("one") != before[0]


def test_bake_and_build_share_their_cache(project: Lamina) -> None:
    project("build", "--target", "two", "--build-arg", "GREETING=hello", "app")
    done = project("bake", "two")
    assert " DONE " not in done.stderr


def test_variables_and_overrides_change_what_is_built(project: Lamina) -> None:
    project("bake", "one", "--set", "one.args.GREETING=set", "--var", "TAG=v1")
    assert cat(project, "one:v1", "/greeting") == "set\n"
    project("bake", "one", env={"TAG": "v2"})
    assert cat(project, "one:v2", "/greeting") == "hello\n"
    project("bake", "one", "--set", "one.output=type=local,dest=out")
    assert (project.cwd / "out" / "name").read_text() == "one\n"


def test_failing_target_names_nothing(project: Lamina) -> None:
    write(project.cwd, {"other/Dockerfile": "FROM busybox\nRUN exit 3\n"})
    bake = BAKE.partition('target "other"')[0] + 'target "other" { context = "other" }\n'
    write(project.cwd, {"docker-bake.hcl": bake})
    done = project("bake", check=False)
    assert done.returncode == 1
    assert "exit code: 3" in done.stderr
    assert project("images", "-q", "one").stdout == ""
    statuses = project("builds", "--format", "{{.Status}}").stdout.split()
    assert statuses == ["Error"] * 3


def test_each_target_is_recorded_with_its_own_steps(project: Lamina) -> None:
    project("bake")
    rows = project("builds", "--format", "{{.Name}} {{.TotalSteps}}").stdout.splitlines()
    assert sorted(rows) == ["app (one)/one 4", "app (two)/two 3", "other/other 3"]


def test_compose_file_is_baked(lamina: Lamina) -> None:
    write(
        lamina.cwd,
        {
            "compose.yaml": "services:\n  web:\n    image: web\n    build: ./app\n",
            "app/Dockerfile": "FROM busybox\nRUN echo web > /name\n",
        },
    )
    lamina("bake")
    assert cat(lamina, "web", "/name") == "web\n"


def test_definition_comes_from_standard_input_and_other_names(project: Lamina) -> None:
    text = (project.cwd / "docker-bake.hcl").read_bytes()
    (project.cwd / "docker-bake.hcl").rename(project.cwd / "mine")
    assert project("bake", check=False).returncode == 3
    project("bake", "-f", "mine", "other")
    project("bake", "-f", "-", "other", stdin=text)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ('cache-from = ["type=gha"]', "--cache-from type=gha"),
        ('attest = ["type=sbom"]', "attest type=sbom is not supported"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(project: Lamina, field: str, message: str) -> None:
    write(project.cwd, {"docker-bake.hcl": f'target "t" {{\n context = "app"\n {field}\n}}\n'})
    done = project("bake", "t", check=False)
    assert done.returncode == 8
    assert message in done.stderr


def test_entitlements_must_be_granted_and_secrets_reach_the_steps(project: Lamina) -> None:
    write(
        project.cwd,
        {
            "docker-bake.hcl": """
target "t" {
  context = "app"
  network = "host"
  secret = ["id=token,env=TOKEN"]
  output = ["type=local,dest=out"]
}
""",
            "app/Dockerfile": "FROM busybox\n"
            "RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size\n",
        },
    )
    env = {"TOKEN": "tell-nobody"}
    refused = project("bake", "t", check=False, env=env)
    assert refused.returncode == 5
    assert "network.host" in refused.stderr
    project("bake", "t", "--allow=network.host", env=env)
    assert (project.cwd / "out" / "size").read_text() == "11\n"
    kept = b"".join(p.read_bytes() for p in (project.root / "builds").iterdir())
    assert b"tell-nobody" not in kept


def test_checks_of_all_targets_are_printed_by_target(project: Lamina) -> None:
    write(project.cwd, {"app/Dockerfile": DOCKERFILE + "CMD true\n"})
    done = project("bake", "--check", "one", "two", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("one\n\nCheck complete, no warnings found.\n\ntwo\n\n")
    assert "JSONArgsRecommended" in done.stdout
    document = json.loads(project("bake", "--call=check,format=json", "two", check=False).stdout)
    assert document["target"]["two"]["check"]["warnings"][0]["ruleName"] == "JSONArgsRecommended"
