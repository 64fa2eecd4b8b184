# SPDX-License-Identifier: Apache-2.0
"""Every option of `RUN --mount`: defaults, spellings, what goes with what."""

from __future__ import annotations

import pytest

from lamina.dockerfile import ast
from lamina.dockerfile.parser import parse
from lamina.dockerfile.runmounts import MountLowering, MountSource, mount_flags, named_source
from lamina.errors import SourceError
from lamina.plan.graph import Edge
from lamina.plan.mounts import (
    BindMount,
    CacheMount,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from lamina.spec.digest import Digest

CONTEXT = Edge(Digest.of(b"context"))
STAGE = Edge(Digest.of(b"stage"))


def flags(*texts: str) -> tuple[ast.Flag, ...]:
    words = " ".join(f"--mount={text}" for text in texts)
    (stage,) = parse(f"FROM a\nRUN {words} true\n".encode()).stages
    return mount_flags(stage.commands[0])


def lower(*texts: str, cwd: str = "/w", namespace: str = "") -> tuple[RunMount, ...]:
    found = flags(*texts)
    lowering = MountLowering(
        expand=lambda text: text.replace("$V", "value"),
        context=lambda: CONTEXT,
        cwd=cwd,
        namespace=namespace,
    )
    named = map(named_source, found)
    sources = [MountSource(STAGE if name else None, bool(name)) for name in named]
    return lowering.lower(found, sources).mounts


def one(text: str, *, cwd: str = "/w", namespace: str = "") -> RunMount:
    (mount,) = lower(text, cwd=cwd, namespace=namespace)
    return mount


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", BindMount("/x", 1)),
        ("type=bind,dst=/x", BindMount("/x", 1)),
        ("type=BIND,destination=/x", BindMount("/x", 1)),
        ("target=x", BindMount("/w/x", 1)),
        ("target=.", BindMount("/w", 1)),
        ("target=/a/../x/", BindMount("/x", 1)),
        ("target=/x,source=/a/b/", BindMount("/x", 1, path="a/b")),
        ("target=/x,src=../../a", BindMount("/x", 1, path="a")),
        ("target=/x,source=.", BindMount("/x", 1)),
        ("target=/$V,source=$V", BindMount("/value", 1, path="value")),
        ("target=/x,rw", BindMount("/x", 1, read_only=False)),
        ("target=/x,readwrite=1", BindMount("/x", 1, read_only=False)),
        ("target=/x,rw=false", BindMount("/x", 1)),
        ("target=/x,ro=F", BindMount("/x", 1, read_only=False)),
        ("target=/x,readonly=TRUE", BindMount("/x", 1)),
        ("target=/x,ro,rw", BindMount("/x", 1, read_only=False)),
        ("TARGET=/x,from=s", BindMount("/x", 1)),
        ("type=cache,target=/c", CacheMount("/c", "//c")),
        ("type=cache,target=/c/", CacheMount("/c", "//c")),
        ("type=cache,target=c", CacheMount("/w/c", "/c")),
        ("type=cache,target=/c,id=i", CacheMount("/c", "/i")),
        ("type=cache,target=/c,sharing=LOCKED", CacheMount("/c", "//c", sharing="locked")),
        ("type=cache,target=/c,sharing=private", CacheMount("/c", "//c", sharing="private")),
        ("type=cache,target=/c,ro", CacheMount("/c", "//c", read_only=True)),
        ("type=cache,target=/c,from=s,source=/d", CacheMount("/c", "//c", 1, "d")),
        (
            "type=cache,target=/c,uid=1,gid=2,mode=0700",
            CacheMount("/c", "//c", uid=1, gid=2, mode=0o700),
        ),
        ("type=tmpfs,target=/t", TmpfsMount("/t")),
        ("type=tmpfs,target=/t,size=1m", TmpfsMount("/t", 1 << 20)),
        ("type=tmpfs,target=/t,size=1.5KiB", TmpfsMount("/t", 1536)),
        ("type=tmpfs,target=/t,ro", TmpfsMount("/t", read_only=True)),
        ("type=secret,id=s", SecretMount("s", "/run/secrets/s")),
        ("type=secret,id=a/s", SecretMount("a/s", "/run/secrets/s")),
        ("type=secret,source=s", SecretMount("s", "/run/secrets/s")),
        ("type=secret,target=/etc/key", SecretMount("key", "/etc/key")),
        ("type=secret,id=s,target=key", SecretMount("s", "/w/key")),
        ("type=secret,id=s,env=E", SecretMount("s", "", "E")),
        ("type=secret,id=s,env=E,target=/k", SecretMount("s", "/k", "E")),
        ("type=secret,id=s,required", SecretMount("s", "/run/secrets/s", required=True)),
        ("type=secret,id=s,required=false", SecretMount("s", "/run/secrets/s")),
        (
            "type=secret,id=s,uid=1,gid=2,mode=444",
            SecretMount("s", "/run/secrets/s", uid=1, gid=2, mode=0o444),
        ),
        ("type=ssh", SshMount("default", "/run/buildkit/ssh_agent.0")),
        ("type=ssh,id=i,target=/s,required", SshMount("i", "/s", required=True)),
        (
            "type=ssh,uid=1,gid=2,mode=666",
            SshMount("default", "/run/buildkit/ssh_agent.0", uid=1, gid=2, mode=0o666),
        ),
    ],
)
def test_mount_is_understood(text: str, expected: RunMount) -> None:
    assert one(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=volume,target=/x", 'unsupported mount type "volume"'),
        ("type=cach,target=/x", "did you mean cache?"),
        ("target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("target=/x,required", "unexpected key 'required' for mount type 'bind'"),
        ("required,type=secret,id=s", "unexpected key 'required' for mount type 'bind'"),
        ("target=/x,uid=0", 'uid not allowed for "bind" type mounts'),
        ("type=tmpfs,target=/x,mode=0", 'mode not allowed for "tmpfs" type mounts'),
        ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
        ("type=cache,target=/x,sharing=x", 'unsupported sharing value "x"'),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,mode=", "invalid value  for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=cache,target=/x,gid=4294967296", "invalid value 4294967296 for gid"),
        ("type=tmpfs,target=/x,size=1x", "invalid value for size: 1x"),
        ("type=tmpfs,target=/x,size=-1", "invalid value for size: -1"),
        ("target=/x,ro=yes", "invalid value for ro: yes"),
        ("target=/x,rw=", "invalid value for rw: "),
        ("target=/x,bogus", "invalid field 'bogus' must be a key=value pair"),
        ("target=/x,bogus=1", "unexpected key 'bogus' in 'bogus=1'"),
        ("target=/x,source", "invalid field 'source' must be a key=value pair"),
        ("", "must be a key=value pair"),
        ("target=/", 'invalid mount target "/"'),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=s,source=s", "both source and id can't be set"),
        ("type=secret,id=s,from=x", "secret mount should not have a from"),
        ("type=secret,id=s,sharing=shared", "secret mount should not define sharing"),
        ("type=cache,target=/x,env=E", 'env not allowed for "cache" type mounts'),
        ("type=secret,id=s,env=A=B", "invalid variable name 'A=B'"),
        ("type=ssh,source=x", "ssh does not support source"),
        ("target=/x,from=$V", "'from' doesn't support variable expansion"),
        ('target=/x,so\\"urce=a', 'bare " in non-quoted field'),
        ('\\"target=/x', 'extraneous or missing " in quoted-field'),
    ],
)
def test_mistake_is_an_error_at_the_flag(text: str, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        lower(text)
    assert message in raised.value.what
    assert raised.value.span is not None


def test_sockets_are_numbered_and_the_first_is_the_agents() -> None:
    first, second = lower("type=ssh", "type=ssh,id=x")
    assert isinstance(first, SshMount)
    assert isinstance(second, SshMount)
    assert (first.target, second.target) == (
        "/run/buildkit/ssh_agent.0",
        "/run/buildkit/ssh_agent.1",
    )


def test_inputs_are_shared_by_mounts() -> None:
    mounts = lower("target=/a", "target=/b,from=s", "target=/c", "target=/d,from=s")
    assert [mount.source for mount in mounts if isinstance(mount, BindMount)] == [1, 2, 1, 2]


def test_namespace_stands_before_the_ids_of_caches() -> None:
    assert one("type=cache,target=/c", namespace="n") == CacheMount("/c", "n//c")


def test_working_directory_at_the_root() -> None:
    assert one("target=x", cwd="/") == BindMount("/x", 1)
