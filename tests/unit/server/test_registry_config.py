# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from lamina.errors import Kind, LaminaError, SourceError
from lamina.server.config import parse_config
from lamina.server.quotas import Quota
from lamina.server.retention import RetentionRule
from lamina.server.rights import Rule, Rules
from lamina.server.wire import CODE_OF_KIND, STATUS

WHOLE = """
[http]
listen = "[::1]:5001"
header-timeout = "10s"
[storage]
root = "data"
[limits]
manifest = "1MiB"
requests-per-client = 8
[gc]
interval = 60
grace = "2h"
untagged-after = "30d"
[auth]
htpasswd = "users"
[auth.token]
issuer = "i"
service = "s"
realm = "https://r.example/token"
signing-key = "/k.pem"
[[rules]]
repositories = "**"
users = ["*"]
actions = ["pull"]
[[webhooks]]
url = "https://hooks.example/"
"""


def test_whole_file_is_read() -> None:
    config = parse_config(WHOLE, name="/etc/registry/config.toml")
    assert config.address() == ("::1", 5001)
    assert config.root == "/etc/registry/data"
    assert config.htpasswd == "/etc/registry/users"
    assert config.limits.manifest == 1 << 20
    assert config.edge.per_client == 8
    assert (config.gc_interval, config.grace, config.untagged_after) == (60, 7200, 30 * 86400)
    assert config.token is not None
    assert config.rules == (Rule("**", frozenset({"*"}), frozenset({"pull"})),)
    assert config.webhooks[0].events == {"push", "delete"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[http]\nlistne = 'x'\n", 2, "unknown key 'listne'"),
        ("[http]\n\nlisten = 5\n", 3, "listen must be a string"),
        ("[http]\nlisten = 'nowhere'\n", 2, "expected HOST:PORT"),
        ("[http]\ntls-key = 'k'\n", 2, "go together"),
        ("[htpp]\n", 1, "unknown key 'htpp'"),
        ("# x\nroot = 'x'\n", 2, "unknown key 'root'"),
        ("[gc]\ngrace = '1 week'\n", 2, "must be a time"),
        ("[gc]\ngrace = -1\n", 2, "must be a time"),
        ("[limits]\nmanifest = '4MB'\n", 2, "must be a size"),
        ("[limits]\npage = 0\n", 2, "at least 1"),
        ("[storage]\nread-only = 'yes'\n", 2, "true or false"),
        ("[auth.token]\nissuer = 'i'\n", 1, "service is missing"),
        (
            """[[rules]]\nrepositories='a'\nusers=['x']\nactions=['pull']
[[rules]]\nrepositories='a'\nusers=['x']\nactions=['fly']\n""",
            8,
            "unknown action 'fly'",
        ),
        ("[[rules]]\nusers=['x']\nactions=['pull']\n", 1, "repositories is missing"),
        ("[[webhooks]]\nurl='ftp://x'\n", 2, "must begin with"),
        ("http = 1\n", 1, "must be a table"),
        ("[history]\nwindow = 'long'\n", 2, "must be a time"),
        *(
            (f"[storage.s3]\nbucket = 'images'\n{table}\n", 3, "not possible for a registry in a")
            for table in (
                "[[quotas]]\nrepositories = '**'\ntags = 1",
                "[[retention]]\nrepositories = '**'\nkeep-newest = 1",
                "[[proxy]]\nprefix = 'a'\nupstream = 'http://127.0.0.1:1'",
                "[history]\nwindow = '1d'",
            )
        ),
        ("[[quotas]]\nrepositories = '**'\nbytes = '1GB'\n", 3, "must be a size"),
        ("[[quotas]]\nrepositories = '**'\n", 1, "bytes or tags is needed"),
        ("[[quotas]]\ntags = 1\n", 1, "repositories is missing"),
        ("[[retention]]\nrepositories = '**'\n", 1, "keep-newest"),
        ("[[retention]]\nkeep-newest = 1\n", 1, "repositories is missing"),
        ("[[retention]]\nrepositories = '**'\nkeep-newset = 1\n", 3, "unknown key 'keep-newset'"),
        (
            """[[retention]]\nrepositories = 'a'\nprotect = true
[[retention]]\nrepositories = 'b'\nprotect = true\nkeep-pushed = '1d'\n""",
            7,
            "has no meaning",
        ),
        ("[[retention]]\nrepositories='a'\nkeep-newest = 1\ntags = 'v*'\n", 4, "list of strings"),
        ("[[proxy]]\nupstream = 'https://r.example'\n", 1, "prefix is missing"),
        ("[[proxy]]\nprefix = 'A/'\nupstream = 'https://r.example'\n", 2, "cannot begin"),
        ("[[proxy]]\nprefix = 'a'\nupstream = 'r.example'\n", 3, "http:// or https://"),
        ("[[proxy]]\nprefix = 'a'\nupstream = 'https://u:p@r.example'\n", 3, "no user"),
        ("[[proxy]]\nprefix='a'\nupstream='https://r.example'\nusername='u'\n", 4, "go together"),
        (
            "[[proxy]]\nprefix='a'\nupstream='https://r.example'\npassword-file='/nowhere'\n",
            4,
            "cannot read /nowhere",
        ),
        (
            """[[proxy]]\nprefix='a/'\nupstream='https://r.example'
[[proxy]]\nprefix='a'\nupstream='https://r.example'\n""",
            5,
            "another proxy",
        ),
        ("[http]\nlisten = \n", 2, "Invalid value"),
    ],
)
def test_errors_have_their_line(text: str, line: int, what: str) -> None:
    with pytest.raises(LaminaError) as caught:
        parse_config(text, name="config.toml", root="" if "s3" in text else "/r")
    assert caught.value.kind is Kind.INVALID
    assert f"config.toml:{line}:" in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "repository", "matches"),
    [
        ("a", "a", True),
        ("a", "a/b", False),
        ("team/*", "team/x", True),
        ("team/*", "team/x/y", False),
        ("team/**", "team/x/y", True),
        ("**", "x/y", True),
        ("a.b", "axb", False),
        ("*/app", "x/app", True),
    ],
)
def test_patterns_of_rules(pattern: str, repository: str, *, matches: bool) -> None:
    rules = Rules((Rule(pattern, frozenset({"u"}), frozenset({"pull"})),))
    assert rules.allow("u", repository, "pull") is matches
    assert not rules.allow("u", repository, "push")
    assert not rules.allow("", repository, "pull")


def test_every_kind_of_error_has_a_code_and_a_status() -> None:
    assert set(CODE_OF_KIND) == set(Kind)
    assert set(CODE_OF_KIND.values()) <= set(STATUS)


BUCKET = """
[storage.s3]
bucket = "images"
prefix = "/team/"
endpoint = "https://s3.example/"
region = "eu-central-1"
path-style = false
redirect = true
signed-for = "5m"
"""


def test_bucket_is_read() -> None:
    config = parse_config(BUCKET, name="registry.toml")
    found = config.bucket
    assert found is not None
    assert (found.bucket, found.prefix, found.endpoint) == ("images", "team", "https://s3.example")
    assert (found.path_style, found.redirect, found.signed_for) == (False, True, 300.0)
    assert config.place == "s3://images/team"


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ('bucket = "images"', 'bucket = "Images"', 3, "invalid bucket name"),
        ('bucket = "images"', "", 2, "invalid bucket name"),
        ("https://s3.example/", "s3.example", 5, "endpoint must begin with"),
        ("redirect = true", 'redirect = "yes"', 8, "redirect must be true or false"),
        ("redirect = true", "redirects = true", 8, "unknown key 'redirects'"),
        ('"5m"', "0", 9, "signed-for must be at least"),
        ("redirect = true", 'access-key-id = "A"', 8, "go together"),
        ("[storage.s3]", '[storage]\nroot = "/r"\n[storage.s3]', 4, "not in both"),
    ],
)
def test_wrong_bucket_is_told_with_its_line(old: str, new: str, line: int, what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        parse_config(BUCKET.replace(old, new), name="registry.toml")
    assert caught.value.span is not None
    assert caught.value.span.start == line


def test_tables_of_the_past_and_of_upstreams_are_read() -> None:
    text = """
[gc]
retention-interval = "10m"
[history]
window = "3d"
[[quotas]]
repositories = "ci/**"
bytes = "1GiB"
[[retention]]
repositories = "ci/*"
tags = ["pr-*"]
exclude-tags = ["pr-keep"]
keep-newest = 5
keep-pulled = "14d"
[[proxy]]
prefix = "hub"
upstream = "https://registry-1.docker.io"
username = "u"
password = "secret"
tag-ttl = "1h"
"""
    config = parse_config(text, name="c.toml", root="/r")
    assert (config.retention_interval, config.window) == (600, 3 * 86400)
    assert config.quotas == (Quota("ci/**", 1 << 30, 0),)
    assert config.retention == (
        RetentionRule(
            "ci/*",
            tags=("pr-*",),
            exclude_tags=("pr-keep",),
            keep_newest=5,
            keep_pulled=14 * 86400.0,
        ),
    )
    assert config.proxies[0].prefix == "hub/"
    assert (config.proxies[0].tag_ttl, config.proxies[0].serve_stale) == (3600, True)
    assert "secret" not in repr(config)
