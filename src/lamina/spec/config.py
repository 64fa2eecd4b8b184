# SPDX-License-Identifier: Apache-2.0
"""The image config (image-spec config.md), with every unknown field kept.

`ImageConfig` is a view on the parsed JSON document: reading is typed, changing makes a new one,
and what lamina does not know (Docker's or a vendor's fields) survives unchanged.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import DiffID, Digest, Stack
from lamina.spec.document import DocumentTooLarge, dump, dump_bounded, parse_object
from lamina.spec.platform import Platform, normalise
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

NANOSECONDS = 1_000_000_000  # Docker's health check durations are in nanoseconds


class InvalidConfig(LaminaError):
    kind = Kind.INVALID


class Healthcheck(Record):
    """Docker's HEALTHCHECK. `test` starts with NONE, CMD or CMD-SHELL; times in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(Record):
    """The `config` object: the defaults a container starts with.

    `env` are (name, value) in order, names unique. `entrypoint`, `cmd` and `shell` are None where
    unset (an empty list is a value of its own: it resets an inherited one).
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "8000/tcp", sorted
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()  # sorted
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()  # sorted by name
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False
    unknown: tuple[tuple[str, str], ...] = ()  # (field, its JSON text): kept as found


class History(Record):
    """One entry of `history`; `created` in RFC 3339, empty if unknown."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Record):
    """An image config. `diff_ids` are lowest first; `created` is RFC 3339 or empty."""

    architecture: str
    os: str
    diff_ids: Stack = ()
    config: RunConfig = RunConfig()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    variant: str = ""
    os_version: str = ""
    unknown: tuple[tuple[str, str], ...] = ()  # (field, its JSON text): kept as found

    @property
    def platform(self) -> Platform:
        """The platform the image is for. Raises InvalidPlatform."""
        return replace(
            normalise(self.os, self.architecture, self.variant), os_version=self.os_version
        )

    @staticmethod
    def parse(raw: bytes) -> ImageConfig:
        """The config in `raw`.

        Raises:
            InvalidConfig: a field has the wrong type.
            InvalidDocument, InvalidDigest: malformed content.
        """
        document = parse_object(raw, what="image config")
        rootfs = _get(document, "rootfs", dict) or {}
        if rootfs.get("type", "layers") != "layers":
            raise InvalidConfig(f"invalid image config: rootfs type {rootfs.get('type')!r}")
        return ImageConfig(
            architecture=_text(document, "architecture"),
            os=_text(document, "os"),
            diff_ids=tuple(DiffID(Digest.parse(text)) for text in _strings(rootfs, "diff_ids")),
            config=_run_config(_get(document, "config", dict) or {}),
            history=tuple(_history(entry) for entry in _get(document, "history", list) or ()),
            created=_text(document, "created"),
            author=_text(document, "author"),
            variant=_text(document, "variant"),
            os_version=_text(document, "os.version"),
            unknown=_unknown(document, _KNOWN_IMAGE),
        )

    def to_json(self) -> dict[str, object]:
        """The JSON document; fields that are unset are left out."""
        document: dict[str, object] = {}
        if self.created:
            document["created"] = self.created
        if self.author:
            document["author"] = self.author
        document["architecture"] = self.architecture
        if self.variant:
            document["variant"] = self.variant
        document["os"] = self.os
        if self.os_version:
            document["os.version"] = self.os_version
        document["config"] = run_config_to_json(self.config)
        document["rootfs"] = {"type": "layers", "diff_ids": [str(d) for d in self.diff_ids]}
        if self.history:
            document["history"] = [_history_to_json(entry) for entry in self.history]
        document.update(_known_again(self.unknown))
        return document

    def serialise(self) -> bytes:
        """Deterministic bytes of the document; their digest is the image id.

        Raises:
            DocumentTooLarge: no reader of images would take it.
        """
        try:
            return dump_bounded(self.to_json(), what="image's config")
        except DocumentTooLarge as error:
            error.hint = "ports, labels, variables and long commands (history) are in it"
            raise


_KNOWN_IMAGE = frozenset(
    {
        "architecture",
        "os",
        "rootfs",
        "config",
        "history",
        "created",
        "author",
        "variant",
        "os.version",
    }
)
_KNOWN_RUN = frozenset(
    {
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "Shell",
        "OnBuild",
        "ArgsEscaped",
    }
)


def run_config_to_json(config: RunConfig) -> dict[str, object]:
    """The `config` object, Docker's field names."""
    document: dict[str, object] = {}
    if config.user:
        document["User"] = config.user
    if config.exposed_ports:
        document["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    if config.env:
        document["Env"] = [f"{name}={value}" for name, value in config.env]
    if config.entrypoint is not None:
        document["Entrypoint"] = list(config.entrypoint)
    if config.cmd is not None:
        document["Cmd"] = list(config.cmd)
    if config.healthcheck is not None:
        document["Healthcheck"] = healthcheck_to_json(config.healthcheck)
    if config.volumes:
        document["Volumes"] = {path: {} for path in config.volumes}
    if config.working_dir:
        document["WorkingDir"] = config.working_dir
    if config.labels:
        document["Labels"] = dict(config.labels)
    if config.stop_signal:
        document["StopSignal"] = config.stop_signal
    if config.shell is not None:
        document["Shell"] = list(config.shell)
    if config.on_build:
        document["OnBuild"] = list(config.on_build)
    if config.args_escaped:
        document["ArgsEscaped"] = True
    document.update(_known_again(config.unknown))
    return document


def _run_config(document: dict[str, Any]) -> RunConfig:
    labels = _get(document, "Labels", dict) or {}
    for value in labels.values():
        if not isinstance(value, str):
            raise InvalidConfig("invalid image config: a label is not a string")
    return RunConfig(
        user=_text(document, "User"),
        exposed_ports=tuple(sorted(_get(document, "ExposedPorts", dict) or {})),
        env=_env(_strings(document, "Env")),
        entrypoint=_optional_strings(document, "Entrypoint"),
        cmd=_optional_strings(document, "Cmd"),
        volumes=tuple(sorted(_get(document, "Volumes", dict) or {})),
        working_dir=_text(document, "WorkingDir"),
        labels=tuple(sorted(labels.items())),
        stop_signal=_text(document, "StopSignal"),
        healthcheck=_healthcheck(_get(document, "Healthcheck", dict)),
        shell=_optional_strings(document, "Shell"),
        on_build=_strings(document, "OnBuild"),
        args_escaped=document.get("ArgsEscaped") is True,
        unknown=_unknown(document, _KNOWN_RUN),
    )


def _env(entries: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Later settings of a name win but keep the place of the first, as Docker does."""
    found: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        found[name] = value
    return tuple(found.items())


def _healthcheck(document: dict[str, Any] | None) -> Healthcheck | None:
    if document is None:
        return None
    return Healthcheck(
        test=_strings(document, "Test"),
        interval=_integer(document, "Interval"),
        timeout=_integer(document, "Timeout"),
        start_period=_integer(document, "StartPeriod"),
        start_interval=_integer(document, "StartInterval"),
        retries=_integer(document, "Retries"),
    )


def healthcheck_to_json(check: Healthcheck) -> dict[str, object]:
    """The object as an image's config has it."""
    document: dict[str, object] = {}
    if check.test:
        document["Test"] = list(check.test)
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ):
        if value:
            document[name] = value
    return document


def _history(entry: object) -> History:
    if not isinstance(entry, dict):
        raise InvalidConfig("invalid image config: a history entry is not an object")
    return History(
        created=_text(entry, "created"),
        created_by=_text(entry, "created_by"),
        author=_text(entry, "author"),
        comment=_text(entry, "comment"),
        empty_layer=entry.get("empty_layer") is True,
    )


def _history_to_json(entry: History) -> dict[str, object]:
    document: dict[str, object] = {}
    if entry.created:
        document["created"] = entry.created
    if entry.created_by:
        document["created_by"] = entry.created_by
    if entry.author:
        document["author"] = entry.author
    if entry.comment:
        document["comment"] = entry.comment
    if entry.empty_layer:
        document["empty_layer"] = True
    return document


def _unknown(document: Mapping[str, object], known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, dump(value).decode()) for name, value in document.items() if name not in known
    )


def _known_again(unknown: Sequence[tuple[str, str]]) -> dict[str, object]:
    from lamina.start.jsontext import loads

    return {name: loads(text) for name, text in unknown}


def _get(document: Mapping[str, Any], field: str, wanted: type) -> Any:
    """The field, None if absent or null. Raises InvalidConfig for another type."""
    value = document.get(field)
    if value is None:
        return None
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InvalidConfig(f"invalid image config: {field} is not a {wanted.__name__}")
    return value


def _text(document: Mapping[str, Any], field: str) -> str:
    value: str | None = _get(document, field, str)
    return value or ""


def _integer(document: Mapping[str, Any], field: str) -> int:
    value: int | None = _get(document, field, int)
    return value or 0


def _strings(document: Mapping[str, Any], field: str) -> tuple[str, ...]:
    return _optional_strings(document, field) or ()


def _optional_strings(document: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    value = _get(document, field, list)
    if value is None:
        return None
    for text in value:
        if not isinstance(text, str):
            raise InvalidConfig(f"invalid image config: {field} holds something not a string")
    return tuple(value)
