# SPDX-License-Identifier: Apache-2.0
"""`--cache-from` and `--cache-to`: what is understood, and what is refused by name."""

from __future__ import annotations

import pytest

from lamina.buildcache.options import CacheFrom, CacheTo, parse_cache_from, parse_cache_to
from lamina.errors import Kind, LaminaError

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user/app:cache", (CacheFrom("registry", ref="user/app:cache"),)),
        ("a,b", (CacheFrom("registry", ref="a"), CacheFrom("registry", ref="b"))),
        ("type=registry,ref=r.io/a", (CacheFrom("registry", ref="r.io/a"),)),
        ("type=local,src=/c", (CacheFrom("local", src="/c"),)),
        (
            f"type=local,src=/c,tag=x,digest={DIGEST}",
            (CacheFrom("local", src="/c", tag="x", digest=DIGEST),),
        ),
        ('type=local,"src=a,b"', (CacheFrom("local", src="a,b"),)),
    ],
)
def test_sources(text: str, found: tuple[CacheFrom, ...]) -> None:
    assert parse_cache_from(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("r.io/a:c", CacheTo("registry", ref="r.io/a:c")),
        ("type=inline", CacheTo("inline")),
        ("type=inline,mode=min", CacheTo("inline")),
        ("type=local,dest=d", CacheTo("local", dest="d")),
        (
            "type=local,dest=d,force-compression=t",
            CacheTo("local", dest="d", force_compression=True),
        ),
        (
            "type=local,dest=a,mode=max,compression=zstd,compression-level=7,ignore-error=1",
            CacheTo(
                "local",
                dest="a",
                max_mode=True,
                compression="zstd",
                level=7,
                ignore_error=True,
            ),
        ),
        (
            "type=registry,ref=a,image-manifest=false",
            CacheTo("registry", ref="a", image_manifest=False),
        ),
        (
            "type=local,dest=a,oci-mediatypes=false",
            CacheTo("local", dest="a", image_manifest=False, oci_mediatypes=False),
        ),
    ],
)
def test_targets(text: str, found: CacheTo) -> None:
    assert parse_cache_to(text) == (found,)


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("type=gha", Kind.UNSUPPORTED, "type=gha"),
        ("type=s3,bucket=b", Kind.UNSUPPORTED, "type=s3"),
        ("type=azblob", Kind.UNSUPPORTED, "type=azblob"),
        ("type=other", Kind.USAGE, "'other'"),
        ("ref=a", Kind.USAGE, "type is missing"),
        ("", Kind.USAGE, "empty"),
        ("type=registry", Kind.USAGE, "ref=REFERENCE"),
        ("type=local", Kind.USAGE, "DIRECTORY"),
        ("type=registry,ref=a,ref=b", Kind.USAGE, "twice"),
        ("type=registry,ref=a,registry.insecure=true", Kind.UNSUPPORTED, "registry.insecure"),
        ("type=registry,ref=a,oops", Kind.USAGE, "oops"),
    ],
)
def test_refused_by_both(text: str, kind: Kind, named: str) -> None:
    for parse in (parse_cache_from, parse_cache_to):
        with pytest.raises(LaminaError) as error:
            parse(text)
        assert error.value.kind is kind
        assert named in str(error.value)


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("type=registry,ref=a,mode=all", Kind.USAGE, "mode=all"),
        ("type=inline,mode=max", Kind.UNSUPPORTED, "mode=max"),
        ("type=inline,ref=a", Kind.UNSUPPORTED, "'ref'"),
        ("type=registry,ref=a,compression=estargz", Kind.UNSUPPORTED, "estargz"),
        ("type=registry,ref=a,compression-level=10", Kind.USAGE, "compression-level=10"),
        ("type=registry,ref=a,ignore-error=maybe", Kind.USAGE, "maybe"),
        (f"type=registry,ref=a@{DIGEST}", Kind.USAGE, "digest"),
        (
            "type=registry,ref=a,image-manifest=true,oci-mediatypes=false",
            Kind.UNSUPPORTED,
            "oci-mediatypes",
        ),
    ],
)
def test_refused_targets(text: str, kind: Kind, named: str) -> None:
    with pytest.raises(LaminaError) as error:
        parse_cache_to(text)
    assert error.value.kind is kind
    assert named in str(error.value)


def test_inline_is_no_source() -> None:
    with pytest.raises(LaminaError, match="ref=IMAGE"):
        parse_cache_from("type=inline")
