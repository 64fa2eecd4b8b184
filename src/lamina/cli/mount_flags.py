# SPDX-License-Identifier: Apache-2.0
"""Docker's ways to ask for a mount: `-v`, `--mount` and `--tmpfs`.

What lamina does not have (named volumes, volume drivers) is refused by name.
"""

from __future__ import annotations

import csv
import os
import posixpath

from lamina.app.run_options import MountRequest
from lamina.cli.values import parse_size
from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_WITHOUT_EFFECT = frozenset({"consistent", "cached", "delegated", "default"})  # Docker Desktop's
_SELINUX = frozenset({"z", "Z"})
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")  # moby, volume/mounts/linux_parser.go


def parse_volume(text: str, *, resolve: Callable[[str], str]) -> MountRequest:
    """What `-v text` asks for; `resolve` makes a relative host path absolute.

    Raises LaminaError of kind USAGE, or UNSUPPORTED for a named volume.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"invalid volume specification: {text!r}")
    if len(parts) == 1:
        destination = _destination(parts[0], text)
        return MountRequest(Mount(destination=destination, type="bind"), volume=True)
    source, destination = parts[0], _destination(parts[1], text)
    options = _volume_options(parts[2] if len(parts) == 3 else "", text)
    if not source.startswith(("/", ".", "~")):
        raise LaminaError(
            f"volume {text!r}: named volumes are not supported",
            kind=Kind.UNSUPPORTED,
            hint=f"give a host directory: -v /path:{destination}",
        )
    mount = Mount(destination, "bind", resolve(source), ("rbind", *options))
    return MountRequest(mount)


def _volume_options(text: str, volume: str) -> tuple[str, ...]:
    options: list[str] = []
    for option in text.split(",") if text else ():
        if option in _WITHOUT_EFFECT:
            continue
        if option in _SELINUX:
            if os.path.exists("/sys/fs/selinux/enforce"):
                raise LaminaError(
                    f"volume {volume!r}: option {option!r}: relabelling is not supported",
                    kind=Kind.UNSUPPORTED,
                )
            continue  # no SELinux here: nothing to relabel, as with Docker
        if option not in _PROPAGATION and option not in {"ro", "rw"}:
            raise _invalid(f"invalid volume specification: {volume!r}: unknown option {option!r}")
        options.append(option)
    return _with_propagation(options)


def _with_propagation(options: Sequence[str]) -> tuple[str, ...]:
    kept = [option for option in options if option != "rw"]
    return tuple(kept) if _PROPAGATION.intersection(kept) else (*kept, "rprivate")


_MOUNT_KEYS = {
    "type": "type",
    "src": "source",
    "source": "source",
    "dst": "target",
    "destination": "target",
    "target": "target",
    "ro": "readonly",
    "readonly": "readonly",
    "bind-propagation": "bind-propagation",
    "bind-nonrecursive": "bind-nonrecursive",
    "bind-recursive": "bind-recursive",
    "consistency": "consistency",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
}


def parse_mount(text: str, *, resolve: Callable[[str], str]) -> MountRequest:
    """What `--mount text` asks for (`type=bind,src=/a,dst=/b,readonly`).

    Raises LaminaError of kind USAGE, or UNSUPPORTED for a key or type that lamina lacks.
    """
    fields = _mount_fields(text)
    type = fields.pop("type", "volume")
    if "target" not in fields:
        raise _invalid(f"invalid mount {text!r}: target is required")
    destination = _destination(fields.pop("target"), text)
    fields.pop("consistency", None)
    match type:
        case "bind":
            return MountRequest(_bind_mount(fields, destination, text, resolve=resolve))
        case "tmpfs":
            return MountRequest(_tmpfs_mount(fields, destination, text))
        case "volume":
            if fields:
                raise LaminaError(
                    f"mount {text!r}: only anonymous volumes are supported "
                    f"(refused: {', '.join(sorted(fields))})",
                    kind=Kind.UNSUPPORTED,
                )
            return MountRequest(Mount(destination=destination, type="bind"), volume=True)
    raise LaminaError(f"mount type {type!r} is not supported", kind=Kind.UNSUPPORTED)


def _mount_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        name = _MOUNT_KEYS.get(key.strip().lower())
        if name is None:
            raise LaminaError(
                f"invalid mount {text!r}: option {key!r} is not supported", kind=Kind.UNSUPPORTED
            )
        if not equals and name not in {"readonly", "bind-nonrecursive"}:
            raise _invalid(f"invalid mount {text!r}: {key!r} needs a value")
        fields[name] = value if equals else "true"
    return fields


def _bind_mount(
    fields: dict[str, str], destination: str, text: str, *, resolve: Callable[[str], str]
) -> Mount:
    if not fields.get("source"):
        raise _invalid(f"invalid mount {text!r}: source is required")
    source = resolve(fields.pop("source"))
    if not os.path.exists(source):
        raise LaminaError(
            f'invalid mount config for type "bind": bind source path does not exist: {source}',
            kind=Kind.USAGE,
        )
    recursive = not _boolean(fields.pop("bind-nonrecursive", "false"), text)
    if fields.get("bind-recursive") in {"enabled", "disabled"}:
        recursive = fields.pop("bind-recursive") == "enabled"
    options = ["rbind" if recursive else "bind"]
    if _boolean(fields.pop("readonly", "false"), text):
        options.append("ro")
    propagation = fields.pop("bind-propagation", "rprivate")
    if propagation not in _PROPAGATION:
        raise _invalid(f"invalid mount {text!r}: unknown propagation {propagation!r}")
    _refuse_rest(fields, text)
    return Mount(destination, "bind", source, (*options, propagation))


def _tmpfs_mount(fields: dict[str, str], destination: str, text: str) -> Mount:
    options = list(_TMPFS_DEFAULTS)
    if _boolean(fields.pop("readonly", "false"), text):
        options.append("ro")
    size = fields.pop("tmpfs-size", "")
    if size:
        options.append(f"size={parse_size(size, '--mount')}")
    mode = fields.pop("tmpfs-mode", "1777")
    if not mode or set(mode) - set("01234567"):
        raise _invalid(f"invalid mount {text!r}: tmpfs-mode is not an octal number")
    options.append(f"mode={mode}")
    _refuse_rest(fields, text)
    return Mount(destination, "tmpfs", "tmpfs", tuple(options))


def parse_tmpfs(text: str) -> MountRequest:
    """What `--tmpfs /run:size=64m,exec` asks for. Raises LaminaError of kind USAGE."""
    path, _, rest = text.partition(":")
    options = list(_TMPFS_DEFAULTS)
    for option in rest.split(",") if rest else ():
        name, _, value = option.partition("=")
        opposite = name[2:] if name.startswith("no") else f"no{name}"
        if name == "size" and value:
            options.append(f"size={parse_size(value, '--tmpfs')}")
        elif name in {"mode", "uid", "gid", "nr_inodes"} and value.isdigit():
            options.append(option)
        elif name in {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"} and not value:
            options = [other for other in options if other != opposite]
            options.append(name)
        else:
            raise _invalid(f"invalid tmpfs option {option!r} in {text!r}")
    if not any(option.startswith("mode=") for option in options):
        options.append("mode=1777")
    destination = _destination(path, text)
    return MountRequest(Mount(destination, "tmpfs", "tmpfs", tuple(dict.fromkeys(options))))


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise _invalid(
            f"invalid volume specification: {text!r}: mount path must be absolute: {path!r}"
        )
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        raise _invalid(f"invalid volume specification: {text!r}: destination can't be '/'")
    return normal


def _boolean(text: str, mount: str) -> bool:
    low = text.lower()
    if low in {"true", "1", ""}:
        return True
    if low in {"false", "0"}:
        return False
    raise _invalid(f"invalid mount {mount!r}: {text!r} is not a boolean")


def _refuse_rest(fields: dict[str, str], text: str) -> None:
    if fields:
        raise _invalid(f"invalid mount {text!r}: {', '.join(sorted(fields))} does not fit its type")


def _invalid(what: str) -> LaminaError:
    return LaminaError(what, kind=Kind.USAGE)
