# SPDX-License-Identifier: Apache-2.0
"""Which driver a configuration opens, and what it can do besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.server.config import Config
from lamina.server.objectstore.bucket import Location
from lamina.server.policies import Proxy
from lamina.server.quotas import Quota
from lamina.server.retention import RetentionRule
from lamina.server.storage import open_driver
from lamina.start.record import replace
from lamina.testing.objectstore import s3_server
from lamina.testing.registry_suite import Clock


@pytest.fixture(scope="module")
def bucket() -> Iterator[Location]:
    with s3_server() as server:
        yield server.location(server.bucket())


def test_a_directory_can_do_everything(tmp_path: Path) -> None:
    driver = open_driver(Config(root=str(tmp_path / "r")), clock=Clock())
    driver.storage.close()
    assert None not in {
        driver.ledger, driver.cached_tags, driver.readable_uploads, driver.overview
    }  # fmt: skip


def test_the_page_tells_no_sizes_with_the_store_behind_it(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    config = Config(root=str(tmp_path / "r"), share_store=str(tmp_path / "store"))
    driver = open_driver(config, clock=Clock())
    driver.storage.close()
    assert driver.ledger is not None
    assert driver.overview is None


def test_a_bucket_has_no_abilities(bucket: Location) -> None:
    driver = open_driver(Config(bucket=bucket), clock=Clock())
    driver.storage.close()
    assert {driver.ledger, driver.cached_tags, driver.readable_uploads, driver.overview} == {None}


@pytest.mark.parametrize(
    "asked",
    [
        {"retention": (RetentionRule("*", keep_newest=1),)},
        {"quotas": (Quota("*", 1, 0),)},
        {"proxies": (Proxy("", "https://example.com"),)},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_what_a_driver_cannot_do_is_refused(bucket: Location, asked: dict[str, object]) -> None:
    config = replace(Config(bucket=bucket), **asked)  # type: ignore[arg-type]  # one field each
    with pytest.raises(LaminaError, match="is not possible with") as caught:
        open_driver(config, clock=Clock())
    assert caught.value.kind is Kind.UNSUPPORTED
