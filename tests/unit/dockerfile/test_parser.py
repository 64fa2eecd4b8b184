# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.dockerfile import ast
from lamina.dockerfile.lexer import MAX_FILE, MAX_LINE
from lamina.dockerfile.parser import parse
from lamina.dockerfile.values import go_quote
from lamina.errors import Kind, SourceError


def commands(text: str) -> tuple[ast.Command, ...]:
    return parse(f"FROM x\n{text}".encode()).stages[0].commands


def only(text: str) -> ast.Command:
    (command,) = commands(text)
    return command


def refused(text: str | bytes) -> SourceError:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SourceError) as raised:
        parse(data)
    assert raised.value.span is not None
    return raised.value


def test_stages_and_global_args_are_kept_apart() -> None:
    found = parse(b"ARG A=1 B\nFROM $A AS One\nRUN x\nFROM one\nARG C\n")
    assert [arg.args for arg in found.global_args] == [(("A", "1"), ("B", None))]
    assert [stage.start.name for stage in found.stages] == ["one", ""]
    assert found.stages[0].start.as_name == "One"
    assert [len(stage.commands) for stage in found.stages] == [1, 1]


def test_span_covers_continuations_and_heredoc_bodies() -> None:
    run, copy = commands("RUN a \\\n # comment\n\n b\nCOPY <<A <<-B /d/\n1\nA\n\t2\n\tB\n")
    assert (run.span.start, run.span.end) == (2, 5)
    assert isinstance(copy, ast.Copy)
    assert (copy.span.start, copy.span.end) == (6, 10)
    assert [(doc.name, doc.content, doc.chomp) for doc in copy.documents] == [
        ("A", "1\n", False),
        ("B", "\t2\n", True),
    ]
    assert copy.documents[1].chomped() == "2\n"
    assert copy.sources == ()


def test_flag_span_points_into_its_own_line() -> None:
    error = refused("FROM x\nCOPY \\\n  --chown=1 \\\n    --frm=a b c\n")
    assert error.span is not None
    assert (error.span.start, error.span.column, error.span.width) == (4, 4, 7)
    assert "did you mean --from?" in error.what


def test_trigger_keeps_its_place_in_the_file() -> None:
    error = refused("FROM x\nONBUILD \\\n  COPY --nope a b\n")
    assert error.span is not None
    assert (error.span.start, error.span.column) == (3, 7)


def test_json_and_shell_forms() -> None:
    run = only('RUN ["a", "b c", "\\u00e9"]')
    assert isinstance(run, ast.Run)
    assert run.command == ast.CommandLine(("a", "b c", "é"), shell=False)
    run = only("RUN ['a']")  # no JSON: Docker gives it to the shell
    assert isinstance(run, ast.Run)
    assert run.command == ast.CommandLine(("['a']",), shell=True)
    run = only('RUN ["a"] && b')
    assert isinstance(run, ast.Run)
    assert run.command.shell


def test_heredoc_marks_in_json_form_are_no_heredocs() -> None:
    found = only('ONBUILD RUN --network=none ["cat", "<<EOF"]')
    assert isinstance(found, ast.OnBuild)
    assert isinstance(found.trigger, ast.Run)
    assert found.trigger.heredocs == ()


def test_shift_operator_and_quoted_marks_are_no_heredocs() -> None:
    found = commands("RUN echo $((1 << 2)) $((1<<2))\nRUN cat <<<word '<<EOF'\n")
    assert [c.heredocs for c in found if isinstance(c, ast.Run)] == [(), ()]


def test_onbuild_expression_holds_its_heredoc() -> None:
    found = only("onbuild RUN <<EOF\nhi\nEOF\n")
    assert isinstance(found, ast.OnBuild)
    assert found.expression == "RUN <<EOF\nhi\nEOF"


def test_pairs_keep_their_quotes_for_expansion() -> None:
    env = only("ENV A=\"b c\" D=e\\ f 'G H'=i")
    assert isinstance(env, ast.Env)
    assert [(p.name, p.value) for p in env.pairs] == [
        ("A", '"b c"'),
        ("D", "e\\ f"),
        ("'G H'", "i"),
    ]
    legacy = only("ENV A b  c=d")
    assert isinstance(legacy, ast.Env)
    assert legacy.pairs == (ast.KeyValue("A", "b  c=d", legacy=True),)


def test_comments_right_above_belong_to_an_instruction() -> None:
    found = parse(b"# syntax=docker/dockerfile:1\n# a\n\n# x the base\n#\n# y\nFROM x AS y\n")
    assert found.stages[0].start.comments == ("y",)


def test_directives_end_at_the_first_other_line() -> None:
    found = parse(
        b"#  SYNTAX = docker/dockerfile:1.4-labs \n# check=skip=all\n\n# escape=`\nFROM x\n"
    )
    assert [(d.name, d.value) for d in found.directives] == [
        ("syntax", "docker/dockerfile:1.4-labs"),
        ("check", "skip=all"),
    ]
    assert found.escape == "\\"


@pytest.mark.parametrize(
    "front_end",
    [
        "docker/dockerfile",
        "docker.io/docker/dockerfile-upstream:master",
        "mirror.example.com/docker/dockerfile:1.9-labs",
        "mirror.example.com:5000/hub/proxy/docker/dockerfile-upstream:1",
        "localhost/docker/dockerfile",
        "hub/docker/dockerfile:1",
        f"[::1]:5000/docker/dockerfile:1@sha256:{'a' * 64}",
        f"docker/dockerfile@sha512:{'b' * 128}",
        "docker/dockerfile:1 options of the front end",
    ],
)
def test_front_end_of_docker_is_known_behind_any_registry_and_prefix(front_end: str) -> None:
    assert parse(f"# syntax={front_end}\nFROM x\n".encode()).stages


@pytest.mark.parametrize(
    "front_end",
    [
        "dockerfile",
        "docker/dockerfiles",
        "docker/dockerfile/labs",
        "docker/dockerfile-upstreamer:1",
        "notdocker/dockerfile:1",
        "mirror.example.com/other-docker/dockerfile:1",
        "docker/dockerfile:",
        "docker/dockerfile@sha256:abc",
        "mirror.example.com//docker/dockerfile",
        "Hub/Docker/dockerfile",
        "docker.example/dockerfile",
    ],
)
def test_other_front_ends_are_refused_by_name(front_end: str) -> None:
    with pytest.raises(SourceError, match="is not supported") as caught:
        parse(f"# syntax={front_end}\nFROM x\n".encode())
    assert caught.value.kind is Kind.UNSUPPORTED
    assert f"syntax {front_end} " in caught.value.what


def test_every_flag_of_the_language_parses() -> None:
    text = (
        "FROM --platform=linux/amd64 x\n"
        "RUN --mount=type=cache,target=/c --mount=type=secret,id=s --network=host "
        "--security=insecure --device=vendor.com/d x\n"
        "COPY --from=a --chown=b --chmod=c --link --parents --exclude=*.a --exclude=*.b d e\n"
        "ADD --keep-git-dir=true --checksum=sha256:1 --unpack=false --link=false --chown=1 f g\n"
        "HEALTHCHECK --interval=1s --timeout=1s --start-period=1s --start-interval=1s --retries=1 "
        "CMD x\n"
    )
    run, copy, add, _ = parse(text.encode()).stages[0].commands
    assert [flag.name for flag in run.flags].count("mount") == 2
    assert copy.flag("link") == "true"
    assert [flag.value for flag in copy.flags if flag.name == "exclude"] == ["*.a", "*.b"]
    assert (add.flag("unpack"), add.flag("keep-git-dir"), add.flag("checksum")) == (
        "false",
        "true",
        "sha256:1",
    )


@pytest.mark.parametrize("name", ["CMD", "ENV", "ARG", "USER", "STOPSIGNAL", "LABEL", "ENTRYPOINT"])
def test_flags_of_an_instruction_without_flags_are_refused(name: str) -> None:
    assert "unknown flag: " in refused(f"FROM x\n{name} --foo=1 A=b\n").what


@pytest.mark.parametrize(
    "name",
    [
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "EXPOSE",
        "VOLUME",
        "USER",
        "WORKDIR",
        "SHELL",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "MAINTAINER",
        "ONBUILD",
        "FROM",
    ],
)
def test_instruction_without_arguments_is_refused(name: str) -> None:
    refused(f"FROM x\n{name}\n")


@pytest.mark.parametrize("value", ["maybe", ""])
def test_boolean_flag_takes_only_true_and_false(value: str) -> None:
    refused(f"FROM x\nCOPY --link={value} a b\n")


def test_sizes_are_bounded() -> None:
    assert refused(b"FROM x\n#" + b"a" * MAX_FILE).kind is Kind.EXHAUSTED
    error = refused(b"FROM x\nRUN " + b"a" * MAX_LINE)
    assert error.kind is Kind.EXHAUSTED
    assert len(str(error)) < 1000
    assert refused(b"FROM x\nRUN " + (b"a" * 60_000 + b"\\\n") * 20).kind is Kind.EXHAUSTED


def test_deeply_nested_json_is_shell_text() -> None:
    run = only("RUN " + "[" * 50_000)
    assert isinstance(run, ast.Run)
    assert run.command.shell


def test_bytes_that_are_not_utf8_are_shown_and_survive() -> None:
    found = parse(b"FROM x\n# caf\xe9\nRUN caf\xe9\n")
    assert found.stages[0].commands[0].text == "RUN caf\udce9"
    assert found.source.lines[2] == "RUN caf\ufffd"
    assert "\ufffd" in str(refused(b"FROM x\n\xff\xfe x\n"))


def test_go_quoting_is_gos() -> None:
    assert go_quote('a"\\\n\x00\x7f\u200b\u00e9\U000e0001') == (
        '"a\\"\\\\\\n\\x00\\x7f\\u200b\u00e9\\U000e0001"'
    )
