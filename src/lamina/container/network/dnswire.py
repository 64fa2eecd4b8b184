# SPDX-License-Identifier: Apache-2.0
"""DNS messages, as much as a resolver of container names needs (RFC 1035 §4): questions read, answers made.

What is forwarded is never taken apart: its bytes go on as they came. A question is bounded by its format
(a name is at most 255 bytes, a label 63), and compression in it is refused, so reading takes no loop that
input could lengthen. Pure.
"""

from __future__ import annotations

import struct

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

A, PTR, AAAA, ANY = 1, 12, 28, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
HEADER = struct.Struct("!HHHHHH")  # id, flags, questions, answers, authorities, additionals
UDP_LIMIT = 512  # bytes, of an answer by UDP (RFC 1035 §2.3.4)

_QR, _OPCODE, _TC, _RD, _RA = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080
_IN = 1
_MAX_NAME, _MAX_LABEL = 255, 63
_ANSWER = struct.Struct("!HHHIH")  # pointer to the question's name, type, class, TTL, length
_NAME_OF_QUESTION = 0xC000 | HEADER.size
_TTL = 600  # seconds, as Docker's (libnetwork, resolver.go: respTTL)


class Malformed(Exception):
    """Not a question that could be answered. `rcode` says why, -1: there is nobody to tell."""

    def __init__(self, rcode: int) -> None:
        super().__init__(rcode)
        self.rcode = rcode


class Question(Record):
    """One question. `name` in lower case, without the last dot; `raw` is the section's bytes, for
    answers, in which a client expects its own spelling.
    """

    id: int
    recursive: bool
    name: str
    type: int
    raw: bytes

    @property
    def is_internet(self) -> bool:
        """Whether it is of class IN, the only one with names of ours."""
        return self.raw[-2:] == b"\0\1"


def read_question(message: bytes) -> Question:
    """The question in a message. Raises Malformed."""
    if len(message) < HEADER.size:
        raise Malformed(-1)
    id, flags, questions, *_ = HEADER.unpack_from(message)
    if flags & _QR:
        raise Malformed(-1)  # an answer: answering it could go on for ever
    if flags & _OPCODE:
        raise Malformed(NOTIMP)
    if questions != 1:
        raise Malformed(FORMERR)
    labels, offset = _read_labels(message, HEADER.size)
    end = offset + 4
    if end > len(message):
        raise Malformed(FORMERR)
    (type,) = struct.unpack_from("!H", message, offset)
    name = ".".join(label.decode("latin-1") for label in labels).lower()
    return Question(id, bool(flags & _RD), name, type, message[HEADER.size : end])


def _read_labels(message: bytes, offset: int) -> tuple[list[bytes], int]:
    labels: list[bytes] = []
    start = offset
    while True:
        if offset >= len(message):
            raise Malformed(FORMERR)
        length = message[offset]
        offset += 1
        if length == 0:
            return labels, offset
        if length > _MAX_LABEL or offset + length - start >= _MAX_NAME:
            raise Malformed(
                FORMERR
            )  # also a compressed name, whose length begins with two bits set
        labels.append(message[offset : offset + length])
        if len(labels[-1]) < length:
            raise Malformed(FORMERR)
        offset += length


def write_name(name: str) -> bytes:
    """A name as it stands in a message. Raises ValueError if it is too long, or not ASCII."""
    written = b""
    for label in name.encode("ascii").split(b".") if name else ():
        if not 0 < len(label) <= _MAX_LABEL:
            raise ValueError(f"not a label: {label!r}")
        written += bytes([len(label)]) + label
    if len(written) >= _MAX_NAME:
        raise ValueError(f"too long for a name: {name!r}")
    return written + b"\0"


def answer(
    question: Question, values: Sequence[bytes] = (), *, rcode: int = NOERROR, limit: int = 65535
) -> bytes:
    """The answer with these values (all of the question's type), cut to `limit` bytes: then marked so,
    and the client asks again by TCP.
    """
    flags = _QR | _RA | (_RD if question.recursive else 0) | rcode
    size = HEADER.size + len(question.raw)
    records = []
    for value in values:
        record = _ANSWER.pack(_NAME_OF_QUESTION, question.type, _IN, _TTL, len(value)) + value
        if size + len(record) > limit:
            flags |= _TC
            break
        size += len(record)
        records.append(record)
    head = HEADER.pack(question.id, flags, 1, len(records), 0, 0)
    return head + question.raw + b"".join(records)


def refusal(message: bytes, rcode: int) -> bytes:
    """The answer to what could not be read, of at least a header's length: a header."""
    id, flags, *_ = HEADER.unpack_from(message)
    return HEADER.pack(id, _QR | _RA | (flags & (_OPCODE | _RD)) | rcode, 0, 0, 0, 0)


def answers(reply: bytes, asked: bytes) -> bool:
    """Whether a server's reply is to this message: same id, same question (RFC 5452 §9.1)."""
    if len(reply) < HEADER.size or reply[:2] != asked[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":  # a server may leave the question out of an error
        return bool(rcode_of(reply))
    try:
        labels, end = _read_labels(asked, HEADER.size)
        theirs, end_of_theirs = _read_labels(reply, HEADER.size)
    except Malformed:
        return False
    same = [label.lower() for label in labels] == [label.lower() for label in theirs]
    return same and asked[end : end + 4] == reply[end_of_theirs : end_of_theirs + 4]


def rcode_of(message: bytes) -> int:
    """The status in a message of at least a header's length."""
    return message[3] & 0x0F
