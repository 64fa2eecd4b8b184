# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.registry.registriesconf import Place, RegistriesConf, load, parse

CONF = """
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example.com/hub"
insecure = true
[[registry.mirror]]
location = "digests.example.com"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "example.com/foo"
location = "internal.net/bar"

[[registry]]
prefix = "*.blocked.com"
blocked = true

[[registry]]
location = "plain.net:5000"
insecure = true

[aliases]
fedora = "registry.example.org/fedora"
"""


def conf(text: str = CONF) -> RegistriesConf:
    return parse(tomllib.loads(text), path="x.conf")


def test_mirrors_come_before_the_registry() -> None:
    places = conf().places("docker.io/library/ubuntu", by_digest=False)
    assert places == (
        Place("mirror.example.com/hub/library/ubuntu", insecure=True, is_mirror=True),
        Place("docker.io/library/ubuntu", insecure=False),
    )
    assert len(conf().places("docker.io/library/ubuntu", by_digest=True)) == 3
    assert len(conf().places("docker.io/library/ubuntu", by_digest=True, mirrors=False)) == 1


def test_a_prefix_is_rewritten_at_whole_components_only() -> None:
    assert conf().places("example.com/foo/app", by_digest=False)[0].location == (
        "internal.net/bar/app"
    )
    assert conf().places("example.com/foobar", by_digest=False)[0].location == "example.com/foobar"


def test_blocked_by_wildcard() -> None:
    with pytest.raises(LaminaError, match="blocked") as caught:
        conf().places("r.blocked.com/x", by_digest=False)
    assert caught.value.kind is Kind.DENIED
    assert conf().places("blocked.com/x", by_digest=False)


def test_insecure_and_aliases() -> None:
    assert conf().places("plain.net:5000/x", by_digest=False)[0].insecure
    assert conf().alias("fedora") == "registry.example.org/fedora"
    assert conf().alias("debian") == ""


@pytest.mark.parametrize(
    "text",
    [
        "[registries.search]\nregistries = []",
        "[[registry]]\ninsecure = true",
        '[[registry]]\nlocation = "a"\ninsecur = true',
        '[[registry]]\nlocation = "https://a"',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"',
        'registry = "a"',
        "[aliases]\na = 1",
    ],
)
def test_mistakes_are_named(text: str) -> None:
    with pytest.raises(LaminaError, match=r"x\.conf"):
        conf(text)


def test_files_and_drop_ins(tmp_path: Path) -> None:
    user = tmp_path / "containers"
    (user / "registries.conf.d").mkdir(parents=True)
    (user / "registries.conf").write_text('[[registry]]\nlocation = "a.io"\nblocked = true\n')
    (user / "registries.conf.d" / "1.conf").write_text('[[registry]]\nlocation = "a.io"\n')
    found = load({"XDG_CONFIG_HOME": str(tmp_path)})
    assert found.places("a.io/x", by_digest=False)
    explicit = tmp_path / "only.conf"
    explicit.write_text('[[registry]]\nprefix = "b.io"\nlocation = "c.io"\n')
    found = load({"CONTAINERS_REGISTRIES_CONF": str(explicit)})
    assert found.places("b.io/x", by_digest=False)[0].location == "c.io/x"
    with pytest.raises(LaminaError):
        load({"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "none")})
