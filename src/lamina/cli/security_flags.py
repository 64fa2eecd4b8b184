# SPDX-License-Identifier: Apache-2.0
"""What `--security-opt` says: each option works here, or is refused by its name."""

from __future__ import annotations

import os

from lamina.cli.arguments import FALSE, TRUE
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.cli.context import Context


class Security(Record):
    """`seccomp` is empty (Docker's profile), `unconfined`, or a profile's JSON text."""

    no_new_privileges: bool = False
    seccomp: str = ""
    bare_system_paths: bool = False
    apparmor: str = ""


def parse_security(
    texts: Sequence[str], context: Context, *, kernel: str = "/sys/kernel/security"
) -> Security:
    """What the options say, later ones win. `kernel` is where the kernel names its modules.

    Raises LaminaError: UNSUPPORTED for one that lamina or this kernel cannot do, USAGE.
    """
    no_new_privileges, seccomp, bare, apparmor = False, "", False, ""
    for text in texts:
        name, separator, value = text.partition("=" if "=" in text else ":")
        match name:
            case "no-new-privileges":
                no_new_privileges = _boolean(text, value)
            case "seccomp" if value in {"unconfined", "builtin"}:
                seccomp = "" if value == "builtin" else value
            case "seccomp" if separator and value:
                seccomp = _profile(value, context)
            case "systempaths" if value == "unconfined":
                bare = True
            case "apparmor" if value == "unconfined":
                apparmor = ""  # lamina gives a container no profile of its own
            case "apparmor" if value:
                if not os.path.isdir(f"{kernel}/apparmor"):
                    raise _refused(text, "this kernel runs without AppArmor")
                apparmor = value
            case "label" if value == "disable":
                pass  # lamina gives a container no label
            case "label":
                raise _refused(text, "lamina sets no SELinux labels: only label=disable is taken")
            case _:
                raise _refused(text, "")
    return Security(
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        bare_system_paths=bare,
        apparmor=apparmor,
    )


def _boolean(text: str, value: str) -> bool:
    if value in TRUE or not value:
        return True
    if value in FALSE:
        return False
    raise LaminaError(f"invalid --security-opt {text!r}: not a boolean", kind=Kind.USAGE)


def _profile(path: str, context: Context) -> str:
    try:
        with open(context.path(path), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise LaminaError(
            f"opening seccomp profile ({path}) failed: {error}", kind=Kind.USAGE
        ) from error


def _refused(text: str, why: str) -> LaminaError:
    return LaminaError(
        f"--security-opt {text} is not supported" + (f": {why}" if why else ""),
        kind=Kind.UNSUPPORTED,
    )
