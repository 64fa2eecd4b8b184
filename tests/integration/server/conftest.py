# SPDX-License-Identifier: Apache-2.0
"""One registry for the tests that can share it; each test uses repositories of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from lamina.testing.registry import RegistryClient, RegistryServer, registry

__all__ = ["client", "registry", "repository", "shared"]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    place = tmp_path_factory.mktemp("registry")
    with RegistryServer(place / "registry") as server:
        yield server


@pytest.fixture
def client(shared: RegistryServer) -> Iterator[RegistryClient]:
    client = shared.client()
    yield client
    client.connection.close()


@pytest.fixture
def repository() -> str:
    return f"test/{uuid.uuid4().hex}"
