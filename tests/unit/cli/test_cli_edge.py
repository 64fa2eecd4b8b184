# SPDX-License-Identifier: Apache-2.0
"""Dispatch, flags and exit statuses, without any command's work."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lamina.app.settings import load_settings, store_root
from lamina.cli.arguments import Parser
from lamina.cli.context import Context
from lamina.cli.main import COMMANDS, main
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


def test_unknown_command_suggests_a_close_one(tmp_path: Path) -> None:
    world = context(tmp_path)
    assert main(["biuld"], world) == 125
    assert "did you mean 'build'" in output(world.stderr)


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
