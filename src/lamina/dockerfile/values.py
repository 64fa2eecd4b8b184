# SPDX-License-Identifier: Apache-2.0
"""Small formats that Docker took from Go: durations, quoted strings, ports, signal names."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.pattern import pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.spec.config import Healthcheck

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC, which Go accepts too
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
# compiled on first use, as few files need it
_DURATION = pattern(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MAX_DURATION = 2**63 - 1
MINIMUM_DURATION = 1_000_000  # ns: Docker's container.MinimumDuration
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
MAX_PORT = 65_535
_SIGNALS = frozenset(
    [
        "ABRT",
        "ALRM",
        "BUS",
        "CHLD",
        "CLD",
        "CONT",
        "FPE",
        "HUP",
        "ILL",
        "INT",
        "IO",
        "IOT",
        "KILL",
        "PIPE",
        "POLL",
        "PROF",
        "PWR",
        "QUIT",
        "SEGV",
        "STKFLT",
        "STOP",
        "SYS",
        "TERM",
        "TRAP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "USR1",
        "USR2",
        "VTALRM",
        "WINCH",
        "XCPU",
        "XFSZ",
        "RTMIN",
        "RTMAX",
    ]
)
_REAL_TIME = pattern(r"RTMIN\+(?:[1-9]|1[0-5])|RTMAX-(?:[1-9]|1[0-4])")


_SIZE_UNITS = {"": 1, "b": 1} | {u: 1 << (10 * n) for n, u in enumerate("kmgtp", start=1)}


class InvalidValue(LaminaError):
    kind = Kind.INVALID


def go_bool(text: str) -> bool:
    """`strconv.ParseBool`. Raises InvalidValue."""
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise InvalidValue(f"invalid boolean {go_quote(text)}")


def go_size(text: str) -> int:
    """go-units' `RAMInBytes`: bytes of `64m`, `1.5 GiB`, `1024`. Raises InvalidValue."""
    last = max((at for at, char in enumerate(text) if char in "0123456789. "), default=-1)
    number, suffix = text[: last + 1], text[last + 1 :].lower()
    unit = _SIZE_UNITS.get(suffix.removesuffix("ib") if len(suffix) == 3 else suffix[:1])
    if unit is None or (len(suffix) == 2 and suffix[1] != "b") or len(suffix) > 3:
        raise InvalidValue(f"invalid suffix: '{suffix}'")
    digits = number.removesuffix(" ")
    if digits.count(".") > 1 or not digits.replace(".", "", 1).isdecimal() or len(digits) > 20:
        raise InvalidValue(f"invalid size: '{text}'")
    size = int(float(digits) * unit)
    if suffix == "bb" or size >= 1 << 63:
        raise InvalidValue(f"invalid size: '{text}'")
    return size


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration (`1m30s`, `1.5h`). Raises InvalidValue."""
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0
    total = 0
    at = 0
    while at < len(rest):
        match = _DURATION.match(rest, at)
        if match is None:
            break
        whole, _, fraction = match[1].partition(".")
        unit = _UNITS[match[2]]
        digits = fraction[:18]
        total += int(whole[:20] or 0) * unit
        total += int(digits) * unit // 10 ** len(digits) if digits else 0
        at = match.end()
    if not rest or at < len(rest) or total > _MAX_DURATION:
        raise InvalidValue(f"invalid duration {go_quote(text)}")
    return -total if text.startswith("-") else total


def format_duration(nanoseconds: int) -> str:
    """The duration as Go prints it: `1m30s`, `1.5s`, `500ms`, `0s`."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    if rest < _UNITS["s"]:
        for unit in ("ms", "µs", "ns"):
            if rest >= _UNITS[unit]:
                return sign + _decimal(rest, _UNITS[unit]) + unit
    hours, rest = divmod(rest, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = _decimal(rest, _UNITS["s"]) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = str(part).zfill(len(str(unit)) - 1).rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)


def go_quote(text: str, quote: str = '"') -> str:
    """The text as Go's `%q` prints it."""
    return quote + "".join(_quote_char(char, quote) for char in text) + quote


def _quote_char(char: str, quote: str) -> str:
    if char == quote:
        return "\\" + char
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char == " " or char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that was not UTF-8
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def go_quote_list(words: Iterable[str]) -> str:
    """A list of strings as Go's `%q` prints it: `["a" "b"]`."""
    return "[" + " ".join(go_quote(word) for word in words) + "]"


def go_list(words: Iterable[str]) -> str:
    """A list of strings as Go's `%v` prints it: `[a b]`."""
    return "[" + " ".join(words) + "]"


def go_healthcheck(check: Healthcheck) -> str:
    """A health check as BuildKit's `%q` of Docker's structure prints it in the history."""
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    parts = [go_quote_list(check.test), *(go_quote(format_duration(time)) for time in times)]
    retries = chr(check.retries) if 0 <= check.retries < 0xD800 else "\ufffd"
    return "&{" + " ".join([*parts, go_quote(retries, "'")]) + "}"


def parse_port(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010`, `[ip:][host:]80` as `port/protocol` each. Raises InvalidValue."""
    *published, container = text.split(":")
    ports, slash, protocol = container.partition("/")
    if not ports:
        raise InvalidValue(f"no port specified: {text}<empty>")
    protocol = protocol.lower() if slash and protocol else "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidValue(f"invalid proto: {protocol}")
    first, last = _port_range(ports, "containerPort")
    if published and published[-1]:
        low, high = _port_range(published[-1], "hostPort")
        if high - low != last - first and last != first:
            raise InvalidValue(
                f"invalid ranges specified for container and host Ports: {ports} and {published[-1]}"
            )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _port_range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    if all(end.isascii() and end.isdigit() and len(end) <= 5 for end in ends):
        low, high = int(ends[0]), int(ends[1])
        if low <= high <= MAX_PORT:
            return low, high
    raise InvalidValue(f"invalid {what}: {text}")


def is_signal(text: str) -> bool:
    """Whether Docker knows this signal: a number above 0, or a name with or without SIG."""
    if text.isascii() and text.isdigit():
        return len(text) <= 3 and int(text) > 0
    name = text.upper().removeprefix("SIG")
    return name in _SIGNALS or _REAL_TIME.fullmatch(name) is not None
