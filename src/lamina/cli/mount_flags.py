# SPDX-License-Identifier: Apache-2.0
"""Docker's ways to ask for a mount: `-v`, `--mount`, `--tmpfs` and `--volumes-from`."""

from __future__ import annotations

import csv
import os
import posixpath

from lamina.cli.arguments import FALSE, TRUE
from lamina.cli.values import parse_size
from lamina.container.ports import Mount
from lamina.container.volumes import check_name, check_options
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_WITHOUT_EFFECT = frozenset({"consistent", "cached", "delegated", "default"})  # Docker Desktop's
_SELINUX = frozenset({"z", "Z"})
_ACCESS = frozenset({"ro", "rw"})
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")  # moby, volume/mounts/linux_parser.go


def parse_volume(text: str, *, resolve: Callable[[str], str]) -> Mount:
    """What `-v text` asks for; `resolve` makes a relative host path absolute.

    Raises LaminaError of kind USAGE, or UNSUPPORTED where SELinux would have to relabel.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"invalid volume specification: {text!r}")
    if len(parts) == 1:
        return Mount(_destination(parts[0], text), "volume", flag="-v")
    source, destination = parts[0], _destination(parts[1], text)
    mode = parts[2] if len(parts) == 3 else ""
    is_volume = not source.startswith(("/", ".", "~"))
    options = _volume_options(mode, text, is_volume=is_volume)
    if is_volume:
        return Mount(destination, "volume", check_name(source), options, flag="-v", mode=mode)
    options = ("rbind", *_with_propagation(options))
    return Mount(destination, "bind", resolve(source), options, flag="-v", mode=mode)


def _volume_options(text: str, volume: str, *, is_volume: bool) -> tuple[str, ...]:
    """The options that matter; of each sort there may be one."""
    given = text.split(",") if text else []
    own = frozenset({"nocopy"}) if is_volume else _PROPAGATION
    for sort in (_ACCESS, own, _SELINUX, _WITHOUT_EFFECT):
        if sum(option in sort for option in given) > 1:
            raise _invalid(f"invalid volume specification: {volume!r}: invalid mode: {text}")
    options: list[str] = []
    for option in given:
        if option in _SELINUX:
            if os.path.exists("/sys/fs/selinux/enforce"):
                raise LaminaError(
                    f"volume {volume!r}: option {option!r}: relabelling is not supported",
                    kind=Kind.UNSUPPORTED,
                )
        elif option in own or option == "ro":
            options.append(option)
        elif option not in _WITHOUT_EFFECT and option != "rw":
            raise _invalid(f"invalid volume specification: {volume!r}: invalid mode: {text}")
    return tuple(options)


def _with_propagation(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(options) if _PROPAGATION.intersection(options) else (*options, "rprivate")


def parse_volumes_from(text: str) -> str:
    """`text` if it is `CONTAINER[:MODE]`, with a mode that can be. Raises LaminaError, USAGE."""
    name, _, mode = text.partition(":")
    given = mode.split(",") if mode else []
    if not name:
        raise _invalid("volumes-from specification cannot be an empty string")
    for sort in (_ACCESS, _SELINUX, _WITHOUT_EFFECT):
        if sum(option in sort for option in given) > 1:
            raise _invalid(f"invalid mode: {mode}")
    if not (_ACCESS | _SELINUX | _WITHOUT_EFFECT).issuperset(given):
        raise _invalid(f"invalid mode: {mode}")
    return text


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
    "volume-nocopy": "volume-nocopy",
    "volume-subpath": "volume-subpath",
    "volume-driver": "volume-driver",
    "volume-label": "volume-label",
    "volume-opt": "volume-opt",
}
_WITHOUT_VALUE = frozenset({"readonly", "bind-nonrecursive", "volume-nocopy"})
_REPEATED = frozenset({"volume-label", "volume-opt"})
_REFUSED_TYPES = {
    "image": "'--mount type=bind' mounts a directory, 'lamina export' has an image's files",
    "cluster": "lamina runs containers on this host only",
    "npipe": "it is of Windows",
}


def parse_mount(text: str, *, resolve: Callable[[str], str]) -> Mount:
    """What `--mount text` asks for (`type=bind,src=/a,dst=/b,readonly`).

    Raises LaminaError of kind USAGE, or UNSUPPORTED for what Docker has and lamina lacks.
    """
    fields, repeated = _mount_fields(text)
    type = fields.pop("type", "volume").lower()
    if type in _REFUSED_TYPES:
        raise LaminaError(
            f"mount type {type!r} is not supported",
            kind=Kind.UNSUPPORTED,
            hint=_REFUSED_TYPES[type],
        )
    if not fields.get("target"):
        raise _argument(text, "target is required")
    given = [*fields, *(key for key, _ in repeated)]
    for other in ("volume", "bind", "tmpfs"):
        if other != type and any(key.startswith(f"{other}-") for key in given):
            raise _argument(text, f"cannot mix '{other}-*' options with mount type '{type}'")
    destination = _destination(fields.pop("target"), text)
    fields.pop("consistency", None)
    read_only = ("ro",) if fields.pop("readonly", "") == "true" else ()
    source = fields.pop("source", "")
    match type:
        case "bind":
            options = _bind_options(fields, read_only, text)
            source = _bind_source(source, resolve=resolve)
        case "tmpfs":
            if source:
                raise _config(type, "field Source must not be specified")
            options = (*_TMPFS_DEFAULTS, *read_only, *_tmpfs_options(fields, text))
            source = "tmpfs"
        case "volume":
            if read_only and not source:
                raise _config(type, "must not set ReadOnly mode when using anonymous volumes")
            options = (*read_only, *_own_options(fields, repeated, source))
        case _:
            raise _config(type, "mount type unknown")
    return Mount(destination, type, source, options, flag="--mount")


def _mount_fields(text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The fields by Docker's first name of each, and those that may be given again."""
    fields: dict[str, str] = {}
    repeated: list[tuple[str, str]] = []
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        name = _MOUNT_KEYS.get(key.strip().lower())
        if not equals:
            if name not in _WITHOUT_VALUE:
                raise _argument(text, f"invalid field '{word}' must be a key=value pair")
            value = "true"
        if name is None:
            raise _argument(text, f"unexpected key '{key}' in '{word}'")
        if name in _WITHOUT_VALUE:
            if value not in TRUE and value not in FALSE:
                raise _argument(text, f"invalid value for {key}: {value}")
            value = "true" if value in TRUE else "false"
        if name in _REPEATED:
            repeated.append((name, value))
        else:
            fields[name] = value
    return fields, repeated


def _own_options(
    fields: dict[str, str], repeated: Sequence[tuple[str, str]], source: str
) -> tuple[str, ...]:
    """The options of a mount of a volume; see `container.volumemounts`."""
    options: list[str] = []
    driver = fields.get("volume-driver", "local")
    if driver not in {"local", ""}:
        raise LaminaError(f"volume driver {driver!r} is not supported", kind=Kind.UNSUPPORTED)
    if source:
        check_name(source)
    subpath = fields.get("volume-subpath", "")
    if subpath:
        if not source:
            raise _config("volume", "must not set Subpath when using anonymous volumes")
        normal = posixpath.normpath(subpath)
        if subpath.startswith("/") or normal.split("/")[0] == "..":
            raise _config("volume", "subpath must be a relative path within the volume")
        options.append(f"subpath={subpath}")
    if fields.get("volume-nocopy") == "true":
        options.append("nocopy")
    pairs = [(name, value) for name, value in repeated if value.partition("=")[0]]
    driver_options = [value.partition("=") for name, value in pairs if name == "volume-opt"]
    check_options(tuple((key, value) for key, _, value in driver_options))
    names = {"volume-label": "label", "volume-opt": "option"}
    return (*options, *(f"{names[name]}={value}" for name, value in pairs))


def _bind_source(source: str, *, resolve: Callable[[str], str]) -> str:
    if not source:
        raise _config("bind", "field Source must not be empty")
    path = resolve(source)
    if not os.path.exists(path):
        raise _config("bind", f"bind source path does not exist: {path}")
    return path


def _bind_options(fields: dict[str, str], read_only: tuple[str, ...], text: str) -> tuple[str, ...]:
    recursion = fields.get("bind-recursive", "enabled")
    if recursion == "readonly":
        raise LaminaError(
            "--mount: bind-recursive=readonly is not supported",
            kind=Kind.UNSUPPORTED,
            hint="mounts beneath the source stay as they are: bind-recursive=disabled leaves them out",
        )
    if recursion not in {"enabled", "disabled", "writable"}:
        raise _argument(
            text,
            f'invalid value for bind-recursive: {recursion} (must be "enabled", "disabled", '
            '"writable", or "readonly")',
        )
    if recursion == "writable" and not read_only:
        raise _argument(
            text, "option 'bind-recursive=writable' requires 'readonly' to be specified"
        )
    is_plain = recursion == "disabled" or fields.get("bind-nonrecursive") == "true"
    propagation = fields.get("bind-propagation", "rprivate").lower()
    if propagation not in _PROPAGATION:
        raise _config("bind", f"invalid propagation mode: {propagation}")
    return ("bind" if is_plain else "rbind", *read_only, propagation)


def _tmpfs_options(fields: dict[str, str], text: str) -> tuple[str, ...]:
    options: list[str] = []
    size = fields.get("tmpfs-size", "")
    if size:
        options.append(f"size={parse_size(size, '--mount')}")
    mode = fields.get("tmpfs-mode", "1777")
    if not mode or set(mode) - set("01234567"):
        raise _argument(text, f"invalid value for tmpfs-mode: {mode}")
    return (*options, f"mode={mode}")


def parse_tmpfs(text: str) -> Mount:
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
    chosen = tuple(dict.fromkeys(options))
    return Mount(destination, "tmpfs", "tmpfs", chosen, flag="--tmpfs", mode=rest)


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise _invalid(
            f"invalid volume specification: {text!r}: mount path must be absolute: {path!r}"
        )
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        raise _invalid(f"invalid volume specification: {text!r}: destination can't be '/'")
    return normal


def _invalid(what: str) -> LaminaError:
    return LaminaError(what, kind=Kind.USAGE)


def _argument(text: str, why: str) -> LaminaError:
    return _invalid(f'invalid argument "{text}" for "--mount" flag: {why}')


def _config(type: str, why: str) -> LaminaError:
    return _invalid(f'invalid mount config for type "{type}": {why}')
