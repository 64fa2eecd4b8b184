# SPDX-License-Identifier: Apache-2.0
"""Configuration: defaults < `/etc/lamina/config.toml` < the user's file < `LAMINA_*` variables.

docs/configuration.md lists every key. An unknown key or a value of the wrong type is an error that
names the file; nothing is ignored.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_FILE = "/etc/lamina/config.toml"
SYSTEM_ROOT = "/var/lib/lamina"


class Settings(Record):
    """What can be configured.

    `ca_bundle` is a PEM file put into RUN steps and never into an image; `runtime` a name or path
    of an OCI runtime (empty: crun, else runc, whichever works); `subnet` of the bridge (empty: one
    that the host does not route). `context_modes` says whether modes of the build context's files count
    as they are (`exact`) or as git keeps them (`git`). `gc` turns the collection after builds `off`;
    the others are its limits (`app.autogc`).
    `token_realms` are hosts of token servers that may be given a registry's password though they
    are of another domain (separated by spaces or commas). `layers` says how layers of images are
    kept: `erofs` (mounted, not unpacked), `directories`, or `auto`, whichever the kernel can do.
    """

    ca_bundle: str = ""
    runtime: str = ""
    subnet: str = ""
    context_modes: str = "exact"
    gc: str = "on"
    gc_reserved_space: str = "10%"
    gc_max_used_space: str = "60%"
    gc_min_free_space: str = "20%"
    gc_max_age: str = ""
    gc_cache_mount_max_age: str = ""
    token_realms: str = ""
    layers: str = "auto"


_KEYS = {
    "ca-bundle": "ca_bundle",
    "runtime": "runtime",
    "subnet": "subnet",
    "context-modes": "context_modes",
    "gc": "gc",
    "gc-reserved-space": "gc_reserved_space",
    "gc-max-used-space": "gc_max_used_space",
    "gc-min-free-space": "gc_min_free_space",
    "gc-max-age": "gc_max_age",
    "gc-cache-mount-max-age": "gc_cache_mount_max_age",
    "token-realms": "token_realms",
    "layers": "layers",
}
_CHOICES = {
    "context_modes": ("exact", "git"),
    "gc": ("on", "off"),
    "layers": ("auto", "erofs", "directories"),
}
_VARIABLES = {
    "LAMINA_CA_BUNDLE": "ca_bundle",
    "LAMINA_RUNTIME": "runtime",
    "LAMINA_SUBNET": "subnet",
    "LAMINA_CONTEXT_MODES": "context_modes",
    "LAMINA_GC": "gc",
    "LAMINA_TOKEN_REALMS": "token_realms",
    "LAMINA_LAYERS": "layers",
}


def load_settings(env: Mapping[str, str], *, uid: int) -> Settings:
    """The settings in force for this environment.

    `LAMINA_CONFIG` names a file to read instead of the usual two (it must exist).

    Raises:
        LaminaError: kind INVALID for a broken file, unknown key or wrong type, NOT_FOUND for a
            missing LAMINA_CONFIG.
    """
    settings = Settings()
    explicit = env.get("LAMINA_CONFIG", "")
    if explicit:
        settings = _apply_file(settings, explicit, required=True)
    else:
        settings = _apply_file(settings, SYSTEM_FILE)
        user_file = _user_file(env)
        if uid != 0 and user_file:
            settings = _apply_file(settings, user_file)
    found = {field: env[name] for name, field in _VARIABLES.items() if env.get(name)}
    for name, field in _VARIABLES.items():
        if field in found:
            _check_choice(field, found[field], name)
    return replace(settings, **found) if found else settings


def _check_choice(field: str, value: str, where: str) -> None:
    choices = _CHOICES.get(field)
    if choices is not None and value not in choices:
        raise LaminaError(
            f"{where} must be one of {', '.join(choices)}, not {value!r}", kind=Kind.INVALID
        )


def store_root(env: Mapping[str, str], uid: int) -> str:
    """`LAMINA_ROOT`, else the system's place for root and the user's data directory for others.

    Raises:
        LaminaError: kind USAGE if a user has neither LAMINA_ROOT, XDG_DATA_HOME nor HOME.
    """
    explicit = env.get("LAMINA_ROOT", "")
    if explicit:
        if not explicit.startswith("/"):
            raise LaminaError(
                f"LAMINA_ROOT must be an absolute path, not {explicit!r}", kind=Kind.USAGE
            )
        return explicit
    if uid == 0:
        return SYSTEM_ROOT
    data = env.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        home = env.get("HOME", "")
        if not home.startswith("/"):
            raise LaminaError(
                "cannot tell where the store is: HOME is not set",
                kind=Kind.USAGE,
                hint="set LAMINA_ROOT to a directory",
            )
        data = f"{home}/.local/share"
    return f"{data}/lamina"


def _user_file(env: Mapping[str, str]) -> str:
    base = env.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        home = env.get("HOME", "")
        if not home.startswith("/"):
            return ""
        base = f"{home}/.config"
    return f"{base}/lamina/config.toml"


def _apply_file(settings: Settings, path: str, *, required: bool = False) -> Settings:
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError as error:
        if not required:
            return settings
        raise LaminaError(
            f"configuration file {path} does not exist", kind=Kind.NOT_FOUND
        ) from error
    import tomllib

    try:
        document = tomllib.loads(raw.decode())
    except ValueError as error:
        raise LaminaError(f"{path}: {error}", kind=Kind.INVALID) from error
    changes: dict[str, str] = {}
    for key, value in document.items():
        field = _KEYS.get(key)
        if field is None:
            raise LaminaError(
                f"{path}: unknown key {key!r}",
                kind=Kind.INVALID,
                hint=f"known keys: {', '.join(sorted(_KEYS))}",
            )
        if not isinstance(value, str):
            raise LaminaError(f"{path}: {key} must be a string", kind=Kind.INVALID)
        _check_choice(field, value, f"{path}: {key}")
        if field == "ca_bundle" and not os.path.isabs(value):
            changes[field] = os.path.join(os.path.dirname(path), value)
        else:
            changes[field] = value
    return replace(settings, **changes)
