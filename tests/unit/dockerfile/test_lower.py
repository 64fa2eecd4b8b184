# SPDX-License-Identifier: Apache-2.0
"""What the golden cases do not show: the protocol of `step`, digests, and untrusted configs."""

from __future__ import annotations

import pytest

from lamina.dockerfile.lower import Lowering, LowerOptions, NeedImages, ResolvedImage
from lamina.dockerfile.lowered import Lowered
from lamina.dockerfile.parser import parse
from lamina.errors import Kind, LaminaError, SourceError
from lamina.events import Severity
from lamina.plan.dump import dump_plan
from lamina.plan.graph import Vertex
from lamina.plan.ops import Exec, LocalSource, proxy_excluded
from lamina.spec.config import History, ImageConfig, RunConfig
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import MAX_LAYERS
from lamina.spec.platform import Platform
from lamina.start.record import replace

AMD64 = Platform("linux", "amd64")
OPTIONS = LowerOptions(platform=AMD64)
BASE = ImageConfig(
    "amd64",
    "linux",
    diff_ids=(DiffID(Digest.of(b"1")), DiffID(Digest.of(b"2"))),
    config=RunConfig(env=(("A", "1"),), working_dir="/base", user="me", unknown=(("X", "1"),)),
    history=(History(created_by="base", created="2020-01-01T00:00:00Z"),),
    created="2020-01-01T00:00:00Z",
    unknown=(("vendor", '"kept"'),),
)


def image(reference: str, config: ImageConfig = BASE) -> ResolvedImage:
    return ResolvedImage(reference, Digest.of(reference.encode()), config)


def lower(text: str, options: LowerOptions = OPTIONS, *, config: ImageConfig = BASE) -> Lowered:
    lowering = Lowering(parse(text.encode()), options)
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    for _ in range(10):
        found = lowering.step(resolved)
        if isinstance(found, Lowered):
            return found
        assert isinstance(found, NeedImages)
        for request in found.requests:
            resolved[request.key] = image(request.reference, config)
    raise AssertionError("lowering asks for ever")


def last(lowered: Lowered) -> Vertex:
    edge = lowered.plan.outputs[0]
    assert edge is not None
    return next(v for v in lowered.plan.vertices if v.digest == edge.vertex)


def last_exec(lowered: Lowered) -> Exec:
    op = last(lowered).op
    assert isinstance(op, Exec)
    return op


def test_only_images_that_the_target_needs_are_asked_for() -> None:
    text = "FROM a AS one\nFROM b AS two\nFROM c\nCOPY --from=one / /\nCOPY --from=d / /\n"
    found = Lowering(parse(text.encode()), OPTIONS).step({})
    assert isinstance(found, NeedImages)
    assert [r.reference for r in found.requests] == [
        "docker.io/library/a:latest",
        "docker.io/library/c:latest",
        "docker.io/library/d:latest",
    ]
    assert [r.span.start for r in found.requests] == [1, 3, 5]
    assert found.requests[0].key == ("docker.io/library/a:latest", "linux/amd64")


def test_step_has_no_memory() -> None:
    lowering = Lowering(parse(b"FROM a\nRUN x\nCMD y\n"), OPTIONS)
    request = ("docker.io/library/a:latest", "linux/amd64")
    resolved = {request: image("docker.io/library/a:latest")}
    assert isinstance(lowering.step({}), NeedImages)
    assert lowering.step(resolved) == lowering.step(resolved)
    assert isinstance(lowering.step({}), NeedImages)


def test_base_config_is_inherited_and_its_unknown_fields_survive() -> None:
    lowered = lower("FROM a\nRUN x\n")
    assert lowered.base_layers == 2
    config = lowered.config
    assert (config.created, config.unknown, config.diff_ids) == ("", BASE.unknown, BASE.diff_ids)
    assert config.config.unknown == BASE.config.unknown
    assert config.history[0] == BASE.history[0]
    op = last_exec(lowered)
    assert (op.cwd, op.user) == ("/base", "me")
    assert [name for name, _ in op.env] == ["A", "PATH"]


def test_proxy_values_are_in_the_op_but_neither_in_its_key_nor_in_the_image() -> None:
    args = (("HTTP_PROXY", "http://u:secret@p"), ("no_proxy", "x"))
    lowered = lower("FROM a\nRUN x\n", replace(OPTIONS, build_args=args))
    op = last_exec(lowered)
    assert op.proxy_args == (*args, ("http_proxy", "http://u:secret@p"), ("NO_PROXY", "x"))
    assert proxy_excluded(op) == last_exec(lower("FROM a\nRUN x\n"))
    assert b"secret" not in lowered.config.serialise()


def test_digest_of_a_step_ignores_where_it_stands_and_what_it_is_called() -> None:
    one = lower("FROM a\nRUN x\n")
    other = lower("# comment\n\nFROM  a  AS named\nrun   x\n")
    assert last(one).digest == last(other).digest
    assert last(one).meta != last(other).meta


def test_metadata_does_not_change_later_layers_but_env_does() -> None:
    plain = last(lower("FROM a\nRUN x\n")).digest
    metadata = "LABEL a=b\nEXPOSE 1\nCMD x\nVOLUME /v\nSTOPSIGNAL 9\nHEALTHCHECK NONE\n"
    assert last(lower(f"FROM a\n{metadata}RUN x\n")).digest == plain
    assert last(lower("FROM a\nENV B=1\nRUN x\n")).digest != plain
    assert last(lower("FROM a\nARG B=1\nRUN x\n")).digest != plain
    assert last(lower("FROM a\nARG B\nRUN x\n")).digest == plain


def test_copy_only_dockerfile_has_one_context_vertex_with_its_patterns() -> None:
    lowered = lower("FROM a\nCOPY a b\nADD c d\n", replace(OPTIONS, ignore=("x", "!y")))
    locals_ = [v.op for v in lowered.plan.vertices if isinstance(v.op, LocalSource)]
    assert locals_ == [LocalSource("context", ("x", "!y"))]


def test_independent_stages_share_no_edges() -> None:
    stages = "".join(f"FROM a AS s{n}\nRUN {n}\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} / /\n" for n in range(3))
    lowered = lower(f"{stages}FROM a\n{copies}")
    runs = [v for v in lowered.plan.vertices if isinstance(v.op, Exec)]
    bases = {v.inputs for v in runs}
    assert len(runs) == 3
    assert len(bases) == 1


def test_options_for_every_run() -> None:
    options = replace(OPTIONS, network="host", extra_hosts=(("db", "10.0.0.1"),), shm_size=1 << 20)
    op = last_exec(lower("FROM a\nRUN x\n", options))
    assert (op.network, op.extra_hosts, op.shm_size) == ("host", (("db", "10.0.0.1"),), 1 << 20)
    assert last_exec(lower("FROM a\nRUN --network=none x\n", options)).network == "none"


@pytest.mark.parametrize("target", ["b", "B", "1"])
def test_target_by_name_or_number(target: str) -> None:
    options = replace(OPTIONS, target=target)
    lowered = lower("FROM a AS a\nFROM a AS b\nRUN b\nFROM a\nRUN c\n", options)
    assert last_exec(lowered).argv[-1] == "b"


def test_copy_from_a_name_used_twice_takes_the_nearest_before() -> None:
    text = "FROM a AS s\nRUN 1\nFROM a AS s\nRUN 2\nFROM a\nCOPY --from=s /x /x\nFROM a AS s\n"
    lowered = lower(text, replace(OPTIONS, target="2"))
    assert [v.op.argv[-1] for v in lowered.plan.vertices if isinstance(v.op, Exec)] == ["2"]


def test_platform_args_can_be_overridden() -> None:
    options = replace(
        OPTIONS, build_platform=Platform("linux", "arm64"), build_args=(("TARGETARCH", "other"),)
    )
    text = "FROM a AS last\nARG TARGETARCH BUILDPLATFORM TARGETSTAGE\nRUN x\n"
    env = dict(last_exec(lower(text, options)).env)
    assert (env["TARGETARCH"], env["BUILDPLATFORM"], env["TARGETSTAGE"]) == (
        "other",
        "linux/arm64",
        "last",
    )


def test_global_arg_needs_to_be_declared_again_in_a_stage() -> None:
    text = "ARG V=1\nFROM a\nENV OLD=$V\nARG V\nENV NEW=$V\n"
    lowered = lower(text)
    env = dict(lowered.config.config.env)
    assert (env["OLD"], env["NEW"]) == ("", "1")
    assert [found.rule for found in lowered.diagnostics] == ["UndefinedVar"]


def test_checks_as_errors_are_marked_as_errors() -> None:
    lowering = Lowering(parse(b"# check=error=true\nFROM a as b\n"), OPTIONS)
    assert [found.severity for found in lowering.diagnostics] == [Severity.ERROR]
    resolved = {("docker.io/library/a:latest", "linux/amd64"): image("docker.io/library/a:latest")}
    with pytest.raises(SourceError, match="FromAsCasing"):
        lowering.step(resolved)


def test_build_argument_replaces_the_check_directive() -> None:
    args = (("BUILDKIT_DOCKERFILE_CHECK", "skip=all"),)
    assert lower("FROM a as b\n", replace(OPTIONS, build_args=args)).diagnostics == ()


def test_wrong_base_architecture_is_reported() -> None:
    lowered = lower("FROM a\n", config=replace(BASE, architecture="arm64", variant="v8"))
    (found,) = lowered.diagnostics
    assert found.message == (
        'Base image a was pulled with platform "linux/arm64/v8", '
        'expected "linux/amd64" for current build'
    )


@pytest.mark.parametrize(
    "run",
    [
        RunConfig(env=(("A", "\ud800"),)),
        RunConfig(working_dir="/\0"),
        RunConfig(on_build=("RUN \ud800",)),
        RunConfig(on_build=("FROM x",)),
        RunConfig(on_build=("RUN a\nRUN b",)),
        RunConfig(on_build=("",)),
        RunConfig(on_build=("RUN --mount=type=what y",)),
    ],
)
def test_hostile_base_config_is_an_error_that_names_from(run: RunConfig) -> None:
    with pytest.raises(SourceError) as raised:
        lower("FROM a\nRUN x\n", config=replace(BASE, config=run))
    assert raised.value.span is not None
    assert raised.value.span.start == 1


@pytest.mark.parametrize("value", ["\udce9", "\0"])
def test_build_argument_that_is_not_text_is_refused(value: str) -> None:
    with pytest.raises(LaminaError) as raised:
        lower("FROM a\n", replace(OPTIONS, build_args=(("A", value),)))
    assert raised.value.kind is Kind.USAGE


@pytest.mark.parametrize(
    "flag",
    [
        "RUN --device=d",
    ],
)
def test_flag_that_is_not_done_is_refused_by_name(flag: str) -> None:
    with pytest.raises(SourceError) as raised:
        lower(f"FROM a\n{flag} a b\n")
    assert raised.value.kind is Kind.UNSUPPORTED
    assert flag.partition("=")[0] in raised.value.what


def test_boolean_flag_set_to_false_asks_for_nothing() -> None:
    assert last(lower("FROM a\nCOPY --link=false a b\n")).digest == (
        last(lower("FROM a\nCOPY a b\n")).digest
    )


@pytest.mark.parametrize(
    ("workdir", "dest", "expected"),
    [
        ("/w", ".", "/w/"),
        ("/w", "./", "/w/"),
        ("/w", "x", "/w/x"),
        ("/w", "x/.", "/w/x/"),
        ("/w", "../../x/", "/x/"),
        ("/w", "/", "/"),
        ("/", ".", "/"),
    ],
)
def test_copy_destination_is_absolute_and_keeps_its_slash(
    workdir: str, dest: str, expected: str
) -> None:
    op = last(lower(f"FROM a\nWORKDIR {workdir}\nCOPY x {dest}\n")).op
    assert getattr(op, "actions")[0].dest == expected  # noqa: B009


def test_unneeded_stage_may_use_what_is_not_supported() -> None:
    lower("FROM --platform=linux/s390x a AS x\nRUN --mount=type=cache,target=/x y\nFROM a\nRUN x\n")


def test_dump_shows_the_plan() -> None:
    text = dump_plan(lower("FROM scratch\nCOPY a /b\n").plan)
    assert text == (
        "#1 [internal] load build context\n"
        "    local context\n"
        "#2* [1/1] COPY a /b\n"
        "    file on empty\n"
        "    copy from #1 ['a'] to /b\n"
        "=> #2\n"
    )


@pytest.mark.parametrize(
    ("lines", "kept", "made"),
    [
        ("WORKDIR /a/", "/a/", "/a"),
        ("WORKDIR //a/./b/../c", "//a/./b/../c", "/a/c"),
        ("WORKDIR /a/\nWORKDIR ./b/", "/a/b", "/a/b"),
        ("WORKDIR /a\nWORKDIR $NOTHING", "/a", "/a"),
    ],
)
def test_working_directory_is_kept_as_buildkit_keeps_it(lines: str, kept: str, made: str) -> None:
    lowered = lower(f"FROM scratch\n{lines}\nRUN x\n")
    assert lowered.config.config.working_dir == kept
    assert last_exec(lowered).cwd == made


LAYERS = {
    "WORKDIR": "WORKDIR /d{}\n",
    "RUN": "RUN step {}\n",
    "COPY": "COPY f /f{}\n",
    "COPY --link": "COPY --link f /f{}\n",
    "ADD": "ADD f /f{}\n",
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("base", ["scratch", "a"])
def test_stack_higher_than_linux_mounts_is_refused_at_its_line(kind: str, base: str) -> None:
    most = MAX_LAYERS - (len(BASE.diff_ids) if base == "a" else 0)
    steps = "".join(LAYERS[kind].format(number) for number in range(most))
    assert lower(f"FROM {base}\n{steps}ENV A=b\nLABEL c=d\n").layers == MAX_LAYERS
    with pytest.raises(SourceError, match=f"more than {MAX_LAYERS} layers") as caught:
        lower(f"FROM {base}\n{steps}ENV A=b\n{LAYERS[kind].format('x')}")
    assert caught.value.kind is Kind.EXHAUSTED
    assert caught.value.span is not None
    assert caught.value.span.start == most + 3


def test_layers_of_the_stages_below_count() -> None:
    stages = ["FROM scratch AS s0\n"]
    stages += [f"FROM s{n} AS s{n + 1}\nRUN step {n}\n" for n in range(MAX_LAYERS)]
    assert lower("".join(stages)).layers == MAX_LAYERS
    with pytest.raises(SourceError) as caught:
        lower("".join(stages) + f"FROM s{MAX_LAYERS}\nRUN one more\n")
    assert caught.value.span is not None
    assert caught.value.span.start == 2 * MAX_LAYERS + 3


def test_long_files_are_lowered_without_recursion() -> None:
    count = 3000
    chain = "FROM scratch AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(count))
    assert len(lower(chain).stages) == count + 1
    copies = "FROM scratch AS s0\nCOPY f /f0\n" + "".join(
        f"FROM scratch AS s{n + 1}\nCOPY --from=s{n} /f{n} /f{n + 1}\n" for n in range(count)
    )
    assert len(lower(copies).plan.vertices) == count + 2
    config = lower("FROM scratch\n" + "".join(f"ENV A{n}=b\n" for n in range(count))).config
    assert len(config.history) == count
