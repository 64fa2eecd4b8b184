# SPDX-License-Identifier: Apache-2.0
"""Dispatch, flags and exit statuses, without any command's work."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lamina.app.settings import load_settings, store_root
from lamina.cli.absent import INSTEAD
from lamina.cli.arguments import HelpWanted, Parser
from lamina.cli.context import Context
from lamina.cli.helptext import GROUPS, SECTIONS, verbs
from lamina.cli.main import ALIASES, COMMANDS, main
from lamina.cli.ui.escape import printable
from lamina.errors import EXIT_STATUS, Kind, LaminaError


def context(tmp_path: Path) -> Context:
    return Context(
        env={},
        cwd=str(tmp_path),
        uid=0,
        stdin=io.StringIO(),
        stdout=io.StringIO(),
        stderr=io.StringIO(),
        clock=lambda: 0.0,
        root=str(tmp_path / "store"),
    )


def output(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_every_kind_has_one_exit_status() -> None:
    assert set(EXIT_STATUS) == set(Kind)
    assert len(set(EXIT_STATUS.values())) == len(EXIT_STATUS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, tmp_path: Path, capsys: object) -> None:
    world = context(tmp_path)
    assert main([name, "--help"], world) == 0, output(world.stderr)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_unknown_flag_by_name(name: str, tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main([name, "--no-such-flag"], world) == 125
    assert "--no-such-flag" in output(world.stderr)


@pytest.mark.parametrize(("typed", "meant"), [("biuld", "build"), ("imge", "image"), ("ru", "run")])
def test_unknown_command_suggests_a_close_one(typed: str, meant: str, tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main([typed], world) == 125
    assert f"did you mean '{meant}'" in output(world.stderr)


# `docker --help` of 28.2 and of each of its groups, and buildx 0.24
DOCKER = """
run exec ps build pull push images login logout search version info
attach commit cp create diff events export history import inspect kill load logs pause port rename
restart rm rmi save start stats stop tag top unpause update wait
builder checkpoint container context image manifest network plugin system trust volume
config node secret service stack swarm compose buildx
"""
DOCKER_GROUPS = {
    "builder": "build prune",
    "buildx": "bake build create dap dial-stdio du history imagetools inspect ls prune rm stop use"
    " version",
    "container": "attach commit cp create diff exec export inspect kill logs ls pause port prune"
    " rename restart rm run start stats stop top unpause update wait",
    "image": "build history import inspect load ls prune pull push rm save tag",
    "system": "df events info prune",
    "volume": "create inspect ls prune rm update",
}


@pytest.mark.parametrize("name", DOCKER.split())
def test_every_command_of_dockers_is_there_or_refused_by_its_name(
    name: str, tmp_path: Path
) -> None:
    world = context(tmp_path)
    there = name in COMMANDS or name in GROUPS
    assert (name in INSTEAD) != there
    assert main([name, "--help"], world) == (0 if there else EXIT_STATUS[Kind.UNSUPPORTED])
    assert (f"lamina has no `{name}`" in output(world.stderr)) != there
    assert "did you mean" not in output(world.stderr)


@pytest.mark.parametrize(
    ("group", "verb"), [(g, v) for g, verbs in DOCKER_GROUPS.items() for v in verbs.split()]
)
def test_every_verb_of_dockers_groups_is_there_or_refused_by_its_name(
    group: str, verb: str, tmp_path: Path
) -> None:
    world = context(tmp_path)
    status = main([group, verb, "--help"], world)
    if status == 0:
        assert output(world.stdout).startswith("Usage:  lamina ")
    else:
        assert status == EXIT_STATUS[Kind.UNSUPPORTED]
        assert f"lamina has no `{group} {verb}`" in output(world.stderr)


def test_refused_command_says_what_there_is_instead(tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main(["search", "web"], world) == EXIT_STATUS[Kind.UNSUPPORTED]
    assert output(world.stderr).splitlines()[1].startswith("hint: 'lamina tags REPOSITORY'")


def test_unknown_verb_of_a_group_lists_those_it_has(tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main(["system", "nosuch"], world) == 125
    assert "'lamina system' has: df, events, fsck, info, prune" in output(world.stderr)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_lamina_alone_shows_its_commands(argv: list[str], tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main(argv, world) == 0
    lines = output(world.stdout).splitlines()
    assert output(world.stderr) == ""
    assert [line for line in lines if line.endswith("Commands:")] == [
        f"{section} Commands:" for section in SECTIONS
    ]
    for name in [*GROUPS, *(name for name in COMMANDS if " " not in name)]:
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1
    column = next(line for line in lines if line.startswith("  run ")).index("create")
    texts = [line for line in lines if line.startswith("  ")]
    assert {line[column - 2 : column] for line in texts} == {"  "}
    assert " " not in {line[column] for line in texts}


@pytest.mark.parametrize("group", GROUPS)
def test_group_alone_and_with_help_shows_its_commands(group: str, tmp_path: Path) -> None:
    shown = set()
    for argv in ([group], [group, "--help"], [group, "-h"], ["help", group]):
        world = context(tmp_path)
        assert main(argv, world) == 0
        shown.add(output(world.stdout))
    (text,) = shown
    assert text.startswith(f"Usage:  lamina {group} COMMAND\n")
    for verb in verbs(group, COMMANDS, ALIASES):
        world = context(tmp_path)
        assert f"\n  {verb} " in text
        assert main([group, verb, "--help"], world) == 0


def test_every_group_is_described() -> None:
    found = {name.split()[0] for name in COMMANDS if " " in name} | {group for group, _ in ALIASES}
    assert found == set(GROUPS)


def parser() -> Parser:
    made = Parser("test", summary="", usage="")
    made.switch("--rm", help="")
    made.switch("-d", "--detach", help="")
    made.add_argument("-e", "--env", action="append", default=[])
    made.add_argument("--name")
    made.refuse("--squash", why="it is not done yet")
    made.add_argument("image")
    made.add_argument("args", nargs="...")
    made.stops_at_positional = True
    return made


def test_switches_take_go_booleans() -> None:
    assert parser().parse(["--rm=true", "x"]).rm is True
    assert parser().parse(["--rm=false", "x"]).rm is False
    with pytest.raises(LaminaError, match="not a boolean"):
        parser().parse(["--rm=maybe", "x"])


def test_what_follows_the_image_is_left_alone() -> None:
    args = parser().parse(["-d", "x", "sh", "--rm=true", "-e", "--name=y"])
    assert args.args == ["sh", "--rm=true", "-e", "--name=y"]
    assert args.env == []


def test_values_may_begin_with_a_dash() -> None:
    args = parser().parse(["-e", "-X=1", "--env", "--y", "-de", "Z=2", "x"])
    assert args.env == ["-X=1", "--y", "Z=2"]
    assert args.detach is True


def test_short_switches_take_go_booleans_and_stand_together() -> None:
    assert parser().parse(["-d=false", "x"]).detach is False
    assert parser().parse(["-d=1", "x"]).detach is True
    args = parser().parse(["-de=A=1", "-e==x", "-e=", "-e", "=y", "x"])
    assert args.detach is True
    assert args.env == ["A=1", "=x", "=", "=y"]


def test_values_may_be_empty_or_two_dashes() -> None:
    args = parser().parse(["-e", "", "--env=", "-e", "--", "--env=--", "--name", "--", "x", "y"])
    assert args.env == ["", "", "--", "--"]
    assert (args.name, args.image, args.args) == ("--", "x", ["y"])


def test_two_dashes_end_the_flags() -> None:
    args = parser().parse(["-d", "--", "x", "--rm", "--", "y"])
    assert (args.image, args.args, args.rm) == ("x", ["--rm", "--", "y"], False)
    made = Parser("test", summary="", usage="")
    made.switch("-q", help="")
    made.add_argument("names", nargs="*")
    assert made.parse(["a", "-q", "b", "--", "-q"]).names == ["a", "b", "-q"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nosuch", "x"], "unknown flag: --nosuch"),
        (["--nosuch=1", "x"], "unknown flag: --nosuch"),
        (["-dy", "x"], "unknown shorthand flag: 'y' in -y"),
        (["--name"], "flag needs an argument: --name"),
        (["-de"], "flag needs an argument: 'e' in -e"),
        (["-d=maybe", "x"], 'invalid argument "maybe" for "-d, --detach" flag: not a boolean'),
        (["--last", "x", "x"], 'invalid argument "x" for "--last" flag: not a whole number'),
        (["--pull=no", "x"], "invalid argument \"no\" for \"--pull\" flag: choose from 'a', 'b'"),
        ([], "'lamina test' requires at least 1 argument"),
        (["--rm", "--"], "'lamina test' requires at least 1 argument"),
    ],
)
def test_errors_name_the_flag(argv: list[str], message: str) -> None:
    made = parser()
    made.add_argument("--last", type=int, default=0)
    made.add_argument("--pull", choices=("a", "b"), default="a")
    with pytest.raises(LaminaError) as caught:
        made.parse(argv)
    assert str(caught.value) == message
    assert caught.value.kind is Kind.USAGE
    assert caught.value.hint == "see 'lamina test --help'"


def test_words_that_are_too_many_or_too_few_are_errors() -> None:
    made = Parser("test", summary="", usage="")
    made.add_argument("first")
    made.add_argument("second", choices=("a", "b"))
    for argv, message in (
        (["x"], "'lamina test' requires 2 arguments"),
        (["x", "a", "c"], "unexpected 'c'"),
        (["x", "c"], "invalid argument \"c\" for second: choose from 'a', 'b'"),
    ):
        with pytest.raises(LaminaError) as caught:
            made.parse(argv)
        assert str(caught.value) == message


def test_help_is_asked_for_before_what_follows() -> None:
    for argv in (["--help", "--nosuch"], ["-dh"], ["-d", "--help"]):
        with pytest.raises(HelpWanted):
            parser().parse(argv)
    assert parser().parse(["x", "--help"]).args == ["--help"]


def test_refused_flag_is_named_with_the_reason() -> None:
    with pytest.raises(LaminaError, match="--squash is not supported: it is not done yet"):
        parser().parse(["--squash", "x"])


def test_foreign_text_cannot_drive_the_terminal() -> None:
    assert printable("\x1b]0;title\x07ok\x9b1m") == "\\x1b]0;title\\x07ok\\x9b1m"
    assert printable("a\nb") == "a\\x0ab"
    assert printable(b"\xff".decode("utf-8", "surrogateescape")) == "\\xff"


def test_settings_refuse_an_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('runtmie = "crun"\n')
    with pytest.raises(LaminaError, match="unknown key 'runtmie'"):
        load_settings({"LAMINA_CONFIG": str(file)}, uid=0)
    file.write_text('runtime = "crun"\nca-bundle = "ca.pem"\n')
    settings = load_settings({"LAMINA_CONFIG": str(file), "LAMINA_RUNTIME": "runc"}, uid=0)
    assert settings.runtime == "runc"
    assert settings.ca_bundle == str(tmp_path / "ca.pem")


def test_store_root_follows_the_documented_order() -> None:
    assert store_root({"LAMINA_ROOT": "/x"}, 0) == "/x"
    assert store_root({}, 0) == "/var/lib/lamina"
    assert store_root({"HOME": "/home/u"}, 1000) == "/home/u/.local/share/lamina"
    with pytest.raises(LaminaError, match="absolute"):
        store_root({"LAMINA_ROOT": "x"}, 0)
