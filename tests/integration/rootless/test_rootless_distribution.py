# SPDX-License-Identifier: Apache-2.0
"""A distribution made, and packages installed, by an ordinary user."""

from __future__ import annotations

import pytest

from lamina.testing.ordinary import OrdinaryUser

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap", "mmdebstrap", "pasta", "busybox"),
]


def test_debian_is_bootstrapped_and_packages_make_users(user: OrdinaryUser) -> None:
    lamina = user.with_busybox("debian")
    lamina("bootstrap", "debian:bookworm", "-t", "debian")
    lamina.write(
        {
            "Dockerfile": "FROM debian\nRUN apt-get update "
            "&& apt-get install -y --no-install-recommends cowsay && useradd -m joe\n"
            "USER joe\nRUN touch ~/mine && stat -c %U:%u ~/mine /etc/shadow > ~/seen\n"
        }
    )
    lamina("build", "-t", "made", ".")
    out = lamina("run", "--rm", "made", "sh", "-c", "id -u; cat ~/seen").stdout
    assert out == "1000\njoe:1000\nroot:0\n"
