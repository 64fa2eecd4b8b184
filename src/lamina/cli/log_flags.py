# SPDX-License-Identifier: Apache-2.0
"""What `--log-driver` and `--log-opt` say."""

from __future__ import annotations

from lamina.cli.values import parse_size
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DRIVERS = ("json-file", "local", "none")
_LOCAL = (20 << 20, 5)  # size and number of files that moby's `local` keeps
_ONLY = {"mode": "blocking", "compress": "false"}  # options with the one value that lamina has


def log_options(driver: str, options: Sequence[str]) -> tuple[str, int, int]:
    """(driver, bytes of a file or 0 for no limit, number of files).

    Raises LaminaError: UNSUPPORTED for a driver or option that lamina has not, USAGE.
    """
    if driver not in DRIVERS:
        raise LaminaError(
            f"--log-driver {driver} is not supported",
            kind=Kind.UNSUPPORTED,
            hint="json-file, local and none are",
        )
    max_size, max_file = _LOCAL if driver == "local" else (0, 1)
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise LaminaError(f"invalid logging opt: {option}", kind=Kind.USAGE)
        if name in _ONLY:
            if value != _ONLY[name]:
                raise LaminaError(
                    f"--log-opt {option} is not supported: only {name}={_ONLY[name]} is",
                    kind=Kind.UNSUPPORTED,
                )
        elif driver == "none" or name not in {"max-size", "max-file"}:
            raise LaminaError(
                f"unknown log opt '{name}' for {driver} log driver", kind=Kind.UNSUPPORTED
            )
        elif name == "max-size":
            max_size = 0 if value == "-1" else parse_size(value, "--log-opt max-size")
        else:
            max_file = _number(value)
    if max_file < 1:
        raise LaminaError("max-file cannot be less than 1", kind=Kind.USAGE)
    if max_file > 1 and not max_size:
        raise LaminaError("max-file needs max-size", kind=Kind.USAGE)
    return driver, max_size, max_file


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LaminaError(
            f'invalid argument "{text}" for "--log-opt max-file" flag', kind=Kind.USAGE
        ) from None
