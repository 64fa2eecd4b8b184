# SPDX-License-Identifier: Apache-2.0
"""An ordinary user with a busybox image in their store."""

from __future__ import annotations

import pytest

from lamina.testing.ordinary import OrdinaryLamina, OrdinaryUser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def user() -> Iterator[OrdinaryUser]:
    with OrdinaryUser() as made:
        yield made


@pytest.fixture
def lamina(user: OrdinaryUser, request: pytest.FixtureRequest) -> Iterator[OrdinaryLamina]:
    """`lamina` as the user runs it, with a store and a directory of the test's own."""
    made = user.with_busybox(request.node.name)
    yield made
    for id in made("ps", "-aq").stdout.split():
        made("rm", "-f", id)
