# SPDX-License-Identifier: Apache-2.0
"""The place of a step that has just failed, with what it had mounted: for `--on-fail=shell`."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import ExitStack, contextmanager

from lamina.app.builds import Place
from lamina.container.ports import Mount
from lamina.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.builder.execution import StepFailed
    from lamina.builder.mounting import StepMounts

_ENVIRONMENT = "/run/lamina-environment"
_SIZE = 8 << 20  # bytes; a secret has at most 500 KiB


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
    with ExitStack() as stack:
        made = stack.enter_context(error.mounts())
        mounts = tuple(replace(mount, source=_path_of(mount)) for mount in made.mounts)
        if made.secret_env:
            source = _environment(made, stack)
            mounts += (Mount(_ENVIRONMENT, "bind", source, ("bind", "rprivate", "ro")),)
            place = replace(place, environment=_ENVIRONMENT)
        yield replace(place, mounts=mounts)


def _path_of(mount: Mount) -> str:
    """The mount's source as a path: the container is made by a process without our descriptors."""
    if mount.source.startswith("/proc/self/fd/"):
        return os.readlink(mount.source)
    return mount.source


def _environment(made: StepMounts, stack: ExitStack) -> str:
    """A file in memory that sets the secret variables, for any user of the container."""
    from lamina.system.mounts import tmpfs, unmount

    directory = tempfile.mkdtemp(prefix="lamina-")
    stack.callback(os.rmdir, directory)
    tmpfs(directory, size=_SIZE, mode=0o700)
    stack.callback(unmount, directory)
    path = os.path.join(directory, "environment")
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in made.secret_env)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(lines)
        os.fchmod(file.fileno(), 0o444)
    return path
