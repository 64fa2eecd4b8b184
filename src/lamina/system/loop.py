# SPDX-License-Identifier: Apache-2.0
"""Loop devices (loop(4)): a file as a read-only block device that goes when nobody uses it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/loop.h>
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_FLAGS_AT = 52  # lo_flags in struct loop_info64
_INFO_SIZE = 232
_CONFIG = struct.Struct("=II")  # fd, block_size; then loop_info64 and eight reserved words
_MAX_TRIES = 64  # others take free devices too


@contextmanager
def loop_device(fd: int) -> Iterator[str]:
    """The path of a block device with the file's content, kept inside the block and as long as it
    is mounted. Raises OSError.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        path, device = _attach(control, fd)
    finally:
        os.close(control)
    try:
        yield path
    finally:
        os.close(device)


def _attach(control: int, fd: int) -> tuple[str, int]:
    info = bytearray(_INFO_SIZE)
    struct.pack_into("=I", info, _FLAGS_AT, _READ_ONLY | _AUTOCLEAR)
    config = _CONFIG.pack(fd, 0) + bytes(info) + bytes(64)
    for _ in range(_MAX_TRIES):
        path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
            continue
        return path, device
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
