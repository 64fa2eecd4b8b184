# SPDX-License-Identifier: Apache-2.0
"""The bucket driver on a real S3 server process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lamina.registry.server.objectstore.storage import BucketStorage
from lamina.testing.objectstore import S3Server, s3_server
from lamina.testing.registry_suite import GRACE, Clock, RegistryStorageContract


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(s3: S3Server, clock: Clock) -> Iterator[BucketStorage]:
    storage = BucketStorage(s3.location(s3.bucket(), prefix="a/b"), clock=clock, grace=GRACE)
    yield storage
    storage.close()


class TestBucketStorage(RegistryStorageContract):
    """The bucket driver keeps the contract."""
