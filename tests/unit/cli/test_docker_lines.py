# SPDX-License-Identifier: Apache-2.0
"""Command lines that Docker's client (28.2) sends to its engine or refuses itself: lamina reads the
same, and refuses the same.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.cli.conftest import World

READ = [
    ["run", "-e=x", "app"],
    ["run", "-e", "--", "app"],
    ["run", "-e", "-1", "app"],
    ["run", "-l", "-x", "app"],
    ["run", "--pids-limit", "-1", "app"],
    ["run", "--pids-limit=-1", "app"],
    ["run", "--stop-timeout", "-1", "app"],
    ["run", "-d=false", "app"],
    ["run", "-td=1", "app"],
    ["run", "--rm=0", "app"],
    ["run", "-d", "--", "app", "--nosuch"],
    ["run", "app", "--nosuch"],
    ["logs", "--tail", "-1", "app"],
    ["logs", "-n-1", "app"],
    ["ps", "-n", "-1"],
    ["stop", "-t", "-1", "app"],
]
REFUSED = [
    ["run", "-e", "=x", "app"],
    ["run", "-e==x", "app"],
    ["run", "-e", "", "app"],
    ["run", "--env=", "app"],
    ["run", "-e"],
    ["run", "--pids-limit", "x", "app"],
    ["run", "-t=maybe", "app"],
    ["run", "--rm=maybe", "app"],
    ["run", "-dy", "app"],
    ["run", "--nosuch", "app"],
    ["run", "-", "x"],
    ["run"],
    ["logs"],
    ["logs", "one", "two"],
    ["ps", "-n=x"],
    ["ps", "one"],
    ["stop", "--time=x", "app"],
    ["tag", "one"],
    ["image", "inspect", "--type", "image", "app"],
    ["container", "inspect", "--platform", "x", "app"],
    ["image", "nosuch"],
    ["nosuch"],
]


def run(world: World, line: list[str]) -> tuple[int, str]:
    words = [line[0], "--pull=never", *line[1:]] if line[0] == "run" else line
    status, _, err = world.run(*words)
    return status, err


@pytest.mark.parametrize("line", READ, ids=" ".join)
def test_line_that_docker_reads_is_read(world: World, line: list[str]) -> None:
    """There is no image or container of that name; that is found out behind the parser."""
    status, err = run(world, line)
    assert status == 0 or 'image "app" not found' in err or "No such container: app" in err, err


@pytest.mark.parametrize("line", REFUSED, ids=" ".join)
def test_line_that_docker_refuses_is_refused(world: World, line: list[str]) -> None:
    status, err = run(world, line)
    assert status == 125, err
    assert "not found" not in err
    assert "No such" not in err
