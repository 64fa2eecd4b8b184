# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from lamina.plan.mounts import (
    BindMount,
    CacheMount,
    RunMount,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from lamina.plan.ops import CopyAction, Exec, FileOp, MkdirAction
from lamina.solver.keys import by_chain, by_content, by_definition, exec_key, file_key
from lamina.spec.digest import DiffID, Digest
from lamina.start.record import replace

A = DiffID(Digest.of(b"a"))
B = DiffID(Digest.of(b"b"))
RUN = Exec(("/bin/sh", "-c", "make"), (("PATH", "/bin"),), "/src")
COPY = FileOp((CopyAction(1, ("x",), "/x"), MkdirAction("/w")))


def test_equal_ops_on_equal_inputs_have_equal_keys() -> None:
    assert exec_key(RUN, by_chain((A,))) == exec_key(replace(RUN), by_chain((A,)))


def test_every_part_of_a_run_changes_its_key() -> None:
    base = by_chain((A,))
    variants = [
        replace(RUN, argv=("/bin/sh", "-c", "make all")),
        replace(RUN, env=(("PATH", "/usr/bin"),)),
        replace(RUN, cwd="/"),
        replace(RUN, user="app"),
        replace(RUN, network="none"),
        replace(RUN, security="insecure"),
        replace(RUN, extra_hosts=(("a", "1.2.3.4"),)),
        replace(RUN, shm_size=1),
        replace(RUN, platform="linux/arm64"),
    ]
    keys = {exec_key(op, base).digest for op in (RUN, *variants)}
    assert len(keys) == len(variants) + 1


def test_proxy_values_are_not_part_of_the_key_or_the_tree() -> None:
    op = replace(RUN, proxy_args=(("http_proxy", "http://user:secret@proxy"),))
    key = exec_key(op, by_chain((A,)))
    assert key.digest == exec_key(RUN, by_chain((A,))).digest
    assert "secret" not in key.tree


def test_address_of_an_extra_host_is_not_part_of_the_key() -> None:
    ops = [replace(RUN, extra_hosts=(("a", address),)) for address in ("1.2.3.4", "5.6.7.8")]
    assert len({exec_key(op, by_chain((A,))).digest for op in ops}) == 1


def test_definition_of_a_mount_counts() -> None:
    mounts: list[RunMount] = [
        BindMount("/a", 1),
        BindMount("/b", 1),
        BindMount("/a", 1, path="x"),
        BindMount("/a", 1, read_only=False),
        CacheMount("/a", "id"),
        CacheMount("/a", "id", uid=1),
        CacheMount("/a", "id", mode=0o700),
        TmpfsMount("/a"),
        TmpfsMount("/a", size=1),
        SecretMount("s", "/a"),
        SecretMount("s", "/a", env="A"),
        SecretMount("t", "/a"),
        SshMount("default", "/a"),
        ScriptMount("/a", "f", "x"),
        ScriptMount("/a", "f", "y"),
    ]
    source = [by_content(Digest.of(b"1"))]
    keys = {exec_key(replace(RUN, mounts=(m,)), by_chain((A,)), source).digest for m in mounts}
    assert len(keys) == len(mounts)


def test_index_of_a_mounts_input_and_the_name_of_a_cache_do_not_count() -> None:
    base, source = by_chain((A,)), [by_content(Digest.of(b"1"))]
    pairs: list[tuple[RunMount, RunMount]] = [
        (BindMount("/a", 1), BindMount("/a", 2)),
        (CacheMount("/a", "x"), CacheMount("/a", "y", sharing="locked")),
    ]
    for one, other in pairs:
        keys = {exec_key(replace(RUN, mounts=(m,)), base, source).digest for m in (one, other)}
        assert len(keys) == 1


def test_content_of_a_mount_counts() -> None:
    op = replace(RUN, mounts=(BindMount("/a", 1),))
    keys = {exec_key(op, by_chain((A,)), [by_content(Digest.of(d))]).digest for d in (b"1", b"2")}
    assert len(keys) == 2


def test_kinds_of_identity_never_collide() -> None:
    digest = Digest.of(b"same")
    identities = (by_definition(digest), by_chain((DiffID(digest),)), by_content(digest))
    assert len({exec_key(RUN, identity).digest for identity in identities}) == 3


def test_base_and_order_of_layers_count() -> None:
    bases = (by_chain(()), by_chain((A,)), by_chain((A, B)), by_chain((B, A)))
    assert len({exec_key(RUN, base).digest for base in bases}) == 4


def test_copied_content_counts_and_the_index_of_the_source_does_not() -> None:
    base = by_chain((A,))
    one, two = by_content(Digest.of(b"1")), by_content(Digest.of(b"2"))
    moved = FileOp((CopyAction(2, ("x",), "/x"), MkdirAction("/w")))
    assert file_key(COPY, base, [one]).digest != file_key(COPY, base, [two]).digest
    assert file_key(COPY, base, [one]).digest == file_key(moved, base, [one]).digest


def test_the_tree_is_json_that_digests_to_the_key() -> None:
    key = file_key(COPY, by_chain((A,)), [by_content(Digest.of(b"1"))])
    assert json.loads(key.tree)["op"]["actions"][0]["dest"] == "/x"
    assert Digest.of(key.tree.encode()) == key.digest


def test_text_that_is_not_unicode_has_a_key() -> None:
    op = replace(RUN, argv=("sh", "-c", "echo \udcff"))
    other = replace(RUN, argv=("sh", "-c", "echo \udcfe"))
    base = by_chain(())
    assert exec_key(op, base).digest != exec_key(other, base).digest
