# SPDX-License-Identifier: Apache-2.0
"""The place of a step that has just failed, with what it had mounted: for `--on-fail=shell`."""

from __future__ import annotations

import os
from contextlib import contextmanager

from lamina.app.builds import Place
from lamina.container.ports import Mount
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.builder.ports import StepFailed

_ENVIRONMENT = "/run/lamina-environment"


@contextmanager
def failed_place(error: StepFailed) -> Iterator[Place]:
    """Where a shell goes after `error`; its mounts are there inside the block.

    Secrets reach the shell as they reached the step: files on a tmpfs, and variables that a file on
    a tmpfs sets, so that nothing of them is in a container's configuration.

    Raises:
        LaminaError: what the step mounted cannot be mounted again.
    """
    op = error.op
    assert op is not None
    place = Place(
        label="of a failed step",
        chain=error.kept,
        stack=(),
        argv=op.argv,
        env=op.env,
        cwd=op.cwd,
        user=op.user,
        network=op.network,
        privileged=op.security == "insecure",
    )
    if error.mounts is None:
        yield place
        return
    with error.mounts() as made:
        mounts = tuple(replace(mount, source=_path_of(mount)) for mount in made.mounts)
        if made.environment:
            options = ("bind", "rprivate", "ro")
            mounts += (Mount(_ENVIRONMENT, "bind", made.environment, options),)
            place = replace(place, environment=_ENVIRONMENT)
        yield replace(place, mounts=mounts)


def _path_of(mount: Mount) -> str:
    """The mount's source as a path: the container is made by a process without our descriptors."""
    if mount.source.startswith("/proc/self/fd/"):
        return os.readlink(mount.source)
    return mount.source
