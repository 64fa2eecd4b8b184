# SPDX-License-Identifier: Apache-2.0
"""A netlink socket: requests, dumps, and the kernel's answer as an exception.

A socket belongs for good to the network namespace of the thread that made it, so one object
configures one namespace from any thread. Not for use by several threads at once. Numbers are from
the kernel's uapi headers `linux/netlink.h` and `linux/rtnetlink.h`.
"""

from __future__ import annotations

import os
import struct

from lamina.start.socketmodule import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

ROUTE = 0  # NETLINK_ROUTE
NETFILTER = 12  # NETLINK_NETFILTER

F_REQUEST, F_ACK = 0x1, 0x4
F_DUMP = 0x300
F_EXCL, F_CREATE = 0x200, 0x400

_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK, _EXT_ACK = 270, 11
_RECEIVE_SIZE = 65536  # larger than any message of a dump (NLMSG_GOODSIZE is at most 16 KiB)
_TIMEOUT = 10.0  # seconds; the kernel answers in microseconds, so this only bounds a bug


def attribute(type_: int, value: bytes | int | str) -> bytes:
    """One attribute, padded: an int is a u32, a str is NUL-terminated."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = os.fsencode(value) + b"\0"
    return _ATTRIBUTE.pack(4 + len(value), type_) + value + b"\0" * (-len(value) % 4)


def nested(type_: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(type_ | _NESTED, b"".join(attributes))


def attributes(payload: bytes) -> dict[int, bytes]:
    """The attributes in `payload` by type; the last of a type wins, a damaged tail is dropped."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(payload):
        length, type_ = _ATTRIBUTE.unpack_from(payload, offset)
        if length < 4 or offset + length > len(payload):
            break
        found[type_ & _TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A netlink socket of `protocol` (`ROUTE` or `NETFILTER`) in the caller's namespace.

    Every method raises OSError with the kernel's errno, and with its own words where it gave any.
    """

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def change(self, type_: int, body: bytes, *, flags: int = 0) -> None:
        """Ask for a change and wait for its acknowledgement."""
        for _ in self._exchange(type_, body, F_REQUEST | F_ACK | flags):
            pass

    def get(self, type_: int, body: bytes) -> bytes:
        """The payload of the one object asked for."""
        answers = list(self._exchange(type_, body, F_REQUEST | F_ACK))
        return answers[0] if answers else b""

    def dump(self, type_: int, body: bytes) -> list[bytes]:
        """The payloads of all objects of a kind, in the kernel's order."""
        return list(self._exchange(type_, body, F_REQUEST | F_DUMP))

    def _exchange(self, type_: int, body: bytes, flags: int) -> Iterator[bytes]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), type_, flags, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            packet = self._socket.recv(_RECEIVE_SIZE)
            offset = 0
            while offset + _HEADER.size <= len(packet):
                length, kind, answer_flags, sequence, _ = _HEADER.unpack_from(packet, offset)
                payload = packet[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an earlier exchange that failed half-way
                if kind == _ERROR:
                    _raise_error(payload, answer_flags)
                    return
                if kind == _DONE:
                    return
                yield payload


def _raise_error(payload: bytes, flags: int) -> None:
    code = -struct.unpack_from("=i", payload)[0]
    if code == 0:
        return
    message = os.strerror(code)
    if flags & 0x200:  # NLM_F_ACK_TLVS: attributes follow the echoed header
        start = 4 + _HEADER.size
        if not flags & 0x100:  # not NLM_F_CAPPED: the whole request is echoed
            start = 4 + struct.unpack_from("=I", payload, 4)[0]
        words = attributes(payload[start:]).get(1, b"")  # NLMSGERR_ATTR_MSG
        if words:
            message = f"{message} ({os.fsdecode(words.rstrip(bytes(1)))})"
    raise OSError(code, message)
