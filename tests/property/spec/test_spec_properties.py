# SPDX-License-Identifier: Apache-2.0
"""Parsing and printing are inverses; arbitrary input gives a value or a LaminaError."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.spec import mediatype
from lamina.spec.config import Healthcheck, History, ImageConfig, RunConfig
from lamina.spec.descriptor import Descriptor, annotations_of
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import dump
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import Index, Manifest, children
from lamina.spec.platform import KNOWN_ARCHITECTURES, Platform, normalise
from lamina.spec.reference import Reference

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
digests = st.binary(max_size=8).map(Digest.of)
component = st.from_regex(r"[a-z0-9]{1,4}([._-][a-z0-9]{1,3})?", fullmatch=True)
registries = st.sampled_from(["docker.io", "localhost", "h.io", "h:5000", "Host", "[::1]:80"])
platforms = st.builds(
    normalise,
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(sorted(KNOWN_ARCHITECTURES)),
    st.sampled_from(["", "v6", "v7", "v8", "v3"]),
)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    registry = draw(registries)
    parts = draw(st.lists(component, min_size=1, max_size=3))
    tag = draw(st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][\w.-]{0,5}", fullmatch=True)))
    digest = draw(st.one_of(st.none(), digests))
    suffix = (f":{tag}" if tag.isascii() and tag else "") + (f"@{digest}" if digest else "")
    return Reference.parse(f"{registry}/{'/'.join(parts)}{suffix}")


@given(references())
def test_reference_round_trips_in_both_forms(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference


@given(st.one_of(st.text(max_size=40), st.text("aA0:/@._-[]", max_size=30)))
def test_any_text_is_a_reference_or_one_error(raw: str) -> None:
    try:
        reference = Reference.parse(raw)
    except LaminaError:
        return
    assert Reference.parse(str(reference)) == reference


@given(platforms)
def test_platform_round_trips(platform: Platform) -> None:
    assert Platform.parse(str(platform)) == platform
    assert platform.preference(platform) == 0


note_maps = st.dictionaries(text, text, max_size=3).map(annotations_of)
descriptors = st.builds(
    Descriptor,
    st.sampled_from([mediatype.OCI_LAYER, mediatype.OCI_LAYER_GZIP, "x/y"]),
    digests,
    st.integers(0, 2**63 - 1),
    annotations=note_maps,
    platform=st.one_of(st.none(), platforms),
    artifact_type=st.sampled_from(["", "a/b"]),
)


@given(descriptors)
def test_descriptor_round_trips(descriptor: Descriptor) -> None:
    assert Descriptor.from_json(json.loads(dump(descriptor.to_json()))) == descriptor


@given(descriptors, st.lists(descriptors, max_size=4), note_maps)
def test_manifest_and_index_round_trip(
    config: Descriptor, layers: list[Descriptor], notes: tuple[tuple[str, str], ...]
) -> None:
    manifest = Manifest.make(config, layers, annotations=notes)
    assert Manifest.parse(manifest.raw) == manifest
    assert children(manifest.media_type, manifest.raw) == (*layers, config)
    index = Index.make(layers, annotations=notes)
    assert Index.parse(index.raw) == index


optional = st.one_of(st.none(), st.lists(text, max_size=3).map(tuple))
nanoseconds = st.integers(0, 2**40)
names = st.text("ABCxyz_", min_size=1, max_size=4)
run_configs = st.builds(
    RunConfig,
    user=text,
    exposed_ports=st.lists(text, unique=True, max_size=3).map(lambda found: tuple(sorted(found))),
    env=st.dictionaries(names, text, max_size=3).map(lambda found: tuple(found.items())),
    entrypoint=optional,
    cmd=optional,
    volumes=st.lists(text, unique=True, max_size=3).map(lambda found: tuple(sorted(found))),
    working_dir=text,
    labels=note_maps,
    stop_signal=text,
    healthcheck=st.one_of(
        st.none(),
        st.builds(Healthcheck, st.lists(text, max_size=2).map(tuple), nanoseconds, nanoseconds),
    ),
    shell=optional,
    on_build=st.lists(text, max_size=2).map(tuple),
    args_escaped=st.booleans(),
)
histories = st.builds(
    History,
    created=text,
    created_by=text,
    author=text,
    comment=text,
    empty_layer=st.booleans(),
)
configs = st.builds(
    ImageConfig,
    architecture=text,
    os=text,
    diff_ids=st.lists(digests.map(DiffID), max_size=3).map(tuple),
    config=run_configs,
    history=st.lists(histories, max_size=3).map(tuple),
    created=text,
    author=text,
    variant=text,
    os_version=text,
    unknown=st.dictionaries(
        st.sampled_from(["x", "y.z"]), st.sampled_from(["1", "[]", '{"a":null}']), max_size=2
    ).map(lambda found: tuple(found.items())),
)


@given(configs)
def test_config_round_trips(config: ImageConfig) -> None:
    assert ImageConfig.parse(config.serialise()) == config


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)
FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "rootfs", "history"]
FIELDS += ["annotations", "subject", "digest", "size", "created", "Env", "Labels", "diff_ids"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6), st.booleans())
def test_any_document_is_a_value_or_one_error(body: dict[str, object], version: bool) -> None:
    raw = json.dumps(body | ({"schemaVersion": 2} if version else {})).encode()
    for parse in (Manifest.parse, Index.parse, ImageConfig.parse):
        try:
            parsed = parse(raw)
        except LaminaError:
            continue
        if isinstance(parsed, ImageConfig):
            assert ImageConfig.parse(parsed.serialise()) == parsed


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_one_error(raw: bytes) -> None:
    for parse in (Manifest.parse, Index.parse, ImageConfig.parse):
        try:
            parse(raw)
        except LaminaError:
            continue


@given(st.lists(digests.map(DiffID), max_size=5), st.lists(digests.map(DiffID), max_size=3))
def test_chain_ids_of_a_prefix_are_a_prefix(lower: list[DiffID], upper: list[DiffID]) -> None:
    assert chain_ids(lower + upper)[: len(lower)] == chain_ids(lower)
