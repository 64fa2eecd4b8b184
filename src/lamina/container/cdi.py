# SPDX-License-Identifier: Apache-2.0
"""Devices by the names of the Container Device Interface, as drivers of GPUs describe them.

Source: cncf-tags/container-device-interface SPEC.md. A field that lamina cannot apply is an error:
a device that is there by half fails where nobody looks for it.
"""

from __future__ import annotations

import os

from lamina.container.devices import add_devices
from lamina.container.extras import DeviceRequest
from lamina.container.spec import checked_path
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from lamina.container.spec import HostFacts

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")  # later ones win
_EDITS = frozenset(("env", "deviceNodes", "mounts", "hooks", "additionalGids"))
_HOOKS = frozenset(
    (
        *("prestart", "createRuntime", "createContainer", "startContainer"),
        *("poststart", "poststop"),
    )
)


def add_cdi_devices(
    spec: dict[str, Any],
    names: Sequence[str],
    host: HostFacts,
    *,
    directories: Sequence[str] = DIRECTORIES,
) -> None:
    """Apply the edits of the devices `names` (`vendor/class=name`) to the runtime spec.

    Raises LaminaError: NOT_FOUND (Docker's words), INVALID for a file, UNSUPPORTED for an edit.
    """
    edits: list[tuple[str, dict[str, Any]]] = []
    common: list[str] = []
    for name in names:
        kind, _, device = name.partition("=")
        for file, document in _documents(directories):
            found = _device(document, device) if document.get("kind") == kind else None
            if found is None:
                continue
            if file not in common:
                common.append(file)
                edits.append((file, document.get("containerEdits") or {}))
            edits.append((file, found.get("containerEdits") or {}))
            break
        else:
            raise LaminaError(
                f"CDI device injection failed: unresolvable CDI devices {name}",
                kind=Kind.NOT_FOUND,
                hint=f"its driver's tool writes a file into {' or '.join(directories)}",
            )
    for file, edit in edits:
        try:
            _apply(spec, edit, host, file=file)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise LaminaError(f"{file} is no CDI file: {error!r}", kind=Kind.INVALID) from error


def _documents(directories: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, document) of the CDI files, those that win first."""
    for directory in reversed(directories):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = f"{directory}/{name}"
            if name.endswith((".json", ".yaml", ".yml")):
                yield path, _read(path)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        document = loads(text) if path.endswith(".json") else _parse_yaml(text)
    except (OSError, ValueError) as error:
        raise LaminaError(f"cannot read the CDI file {path}: {error}", kind=Kind.INVALID) from error
    if not isinstance(document, dict):
        raise LaminaError(f"{path} is no CDI file: not a mapping", kind=Kind.INVALID)
    return document


def _parse_yaml(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _device(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    for device in document.get("devices") or ():
        if isinstance(device, dict) and str(device.get("name")) == name:
            return device
    return None


def _apply(spec: dict[str, Any], edit: dict[str, Any], host: HostFacts, *, file: str) -> None:
    unknown = sorted(set(edit) - _EDITS)
    if unknown:
        raise LaminaError(
            f"{file}: containerEdits.{unknown[0]} is not supported", kind=Kind.UNSUPPORTED
        )
    process = spec["process"]
    for text in edit.get("env") or ():
        name = text.partition("=")[0]
        process["env"] = [each for each in process["env"] if each.partition("=")[0] != name]
        process["env"].append(text)
    nodes = edit.get("deviceNodes") or ()
    requests = [
        DeviceRequest(
            node.get("hostPath") or node["path"], node["path"], node.get("permissions") or "rwm"
        )
        for node in nodes
    ]
    add_devices(spec, requests, host)
    for mount in edit.get("mounts") or ():
        spec["mounts"].insert(
            len(spec["mounts"]) - 1,
            {
                "destination": checked_path(mount["containerPath"], what="mount destination"),
                "type": mount.get("type") or "bind",
                "source": mount["hostPath"],
                "options": list(mount.get("options") or ("rbind", "ro", "nosuid", "nodev")),
            },
        )
    for hook in edit.get("hooks") or ():
        point = hook["hookName"]
        if point not in _HOOKS:
            raise LaminaError(f"{file}: hook {point!r} is not supported", kind=Kind.UNSUPPORTED)
        entry = {name: hook[name] for name in ("path", "args", "env", "timeout") if name in hook}
        spec.setdefault("hooks", {}).setdefault(point, []).append(entry)
    gids = process["user"]["additionalGids"]
    gids += [gid for gid in edit.get("additionalGids") or () if gid not in gids]
