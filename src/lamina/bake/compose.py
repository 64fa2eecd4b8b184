# SPDX-License-Identifier: Apache-2.0
"""The `build:` sections of compose files as bake targets (compose-spec build.md, 12-interpolation).

What a service needs to run is not looked at. `extends` and `include` are refused by name.
"""

from __future__ import annotations

import re

from lamina.bake.values import BakeError
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[A-Za-z_]\w*)"
    r"|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-?+])(?P<word>[^{}]*))?\}|(?P<bad>))"
)
_BUILD_KEYS = frozenset(
    "additional_contexts args cache_from cache_to context dockerfile dockerfile_inline"  # noqa: SIM905  # a list of words
    " entitlements extra_hosts isolation labels network no_cache platforms privileged provenance"
    " pull sbom secrets shm_size ssh tags target ulimits x-bake".split()
)
_REFUSED_KEYS = ("isolation", "privileged")
# x-bake key -> field of a target
_EXTENSION = {
    "tags": "tags",
    "cache-from": "cache-from",
    "cache-to": "cache-to",
    "secret": "secret",
    "ssh": "ssh",
    "platforms": "platforms",
    "output": "output",
    "pull": "pull",
    "no-cache": "no-cache",
    "no-cache-filter": "no-cache-filter",
    "contexts": "contexts",
}


def parse_compose(files: Sequence[tuple[str, str]], env: Mapping[str, str]) -> dict[str, Any]:
    """{"group": {...}, "target": {...}} of compose files (name, text), merged in order.

    Raises:
        BakeError: not YAML, not a compose file, or a value of the wrong type.
        LaminaError: kind UNSUPPORTED for what is refused.
    """
    merged: dict[str, Any] = {}
    for name, text in files:
        merged = _merge(merged, _load(name, text, env))
    services = merged.get("services") or {}
    targets: dict[str, Any] = {}
    for name, service in services.items():
        if isinstance(service, dict) and service.get("build") is not None:
            targets[name.replace(".", "_")] = _target(name, service, merged, env)
    group = {"default": {"targets": list(targets)}} if services else {}
    return {"group": group, "target": targets}


def is_compose(text: str) -> bool:
    """Whether the text is YAML with services."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("services"), dict)


def read_dotenv(text: str, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a `.env` file that `env` does not have."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        else:
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1].replace("\\n", "\n")
            else:
                value = re.split(r"\s+#", value, maxsplit=1)[0]
            value = interpolate(value, {**found, **env}, where=".env")
        if name not in env:
            found[name] = value
    return found


def interpolate(text: str, env: Mapping[str, str], *, where: str) -> str:
    """The text with `$NAME`, `${NAME}`, `${NAME:-word}` (and -, :+, +, :?, ?) replaced."""

    def replace(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name = found["named"] or found["braced"]
        if name is None:
            raise BakeError(f"{where}: invalid interpolation format in {text!r}")
        operator, word = found["operator"] or "", found["word"] or ""
        value = env.get(name)
        is_set = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("-"):
            return (value or "") if is_set else word
        if operator.endswith("+"):
            return word if is_set else ""
        if operator.endswith("?") and not is_set:
            raise BakeError(f"{where}: required variable {name} is missing a value: {word}")
        return value or ""

    return _VARIABLE.sub(replace, text)


def _load(name: str, text: str, env: Mapping[str, str]) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BakeError(f"{name}: cannot parse YAML: {error}") from error
    if not isinstance(document, dict) or not document:
        raise BakeError(f"{name}: it is an empty compose file")
    if "include" in document:
        raise LaminaError(f"{name}: include is not supported", kind=Kind.UNSUPPORTED)
    services = document.get("services") or {}
    if not isinstance(services, dict):
        raise BakeError(f"{name}: services is not a mapping")
    kept: dict[str, Any] = {}
    for service, body in services.items():
        body = body or {}  # noqa: PLW2901  # a service may be empty
        if not isinstance(body, dict):
            raise BakeError(f"{name}: service {service!r} is not a mapping")
        if "extends" in body:
            raise LaminaError(
                f"{name}: service {service!r}: extends is not supported", kind=Kind.UNSUPPORTED
            )
        own = {k: body[k] for k in ("image", "build", "environment") if k in body}
        if isinstance(own.get("build"), str):
            own["build"] = {"context": own["build"]}
        kept[str(service)] = _interpolated(_normalised(own), env, name)
    secrets = document.get("secrets") or {}
    return {"services": kept, "secrets": _interpolated(secrets, env, name)}


def _interpolated(value: Any, env: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        return interpolate(value, env, where=where)
    if isinstance(value, list):
        return [_interpolated(each, env, where) for each in value]
    if isinstance(value, dict):
        return {key: _interpolated(each, env, where) for key, each in value.items()}
    return value


def _normalised(service: dict[str, Any]) -> dict[str, Any]:
    """Lists of `NAME=VALUE` as mappings, so that files merge by name."""
    build = service.get("build")
    if isinstance(build, dict):
        build = dict(build)
        for key in ("args", "labels", "additional_contexts"):
            if key in build:
                build[key] = _mapping(build[key], key)
        if "extra_hosts" in build:
            build["extra_hosts"] = _hosts(build["extra_hosts"])
        service = {**service, "build": build}
    if "environment" in service:
        service = {**service, "environment": _mapping(service["environment"], "environment")}
    return service


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    if not isinstance(value, list):
        raise BakeError(f"{what} is neither a list nor a mapping")
    found: dict[str, Any] = {}
    for item in value:
        name, equals, text = str(item).partition("=")
        found[name] = text if equals else None
    return found


def _hosts(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {
            str(name): ",".join(map(str, each)) if isinstance(each, list) else str(each)
            for name, each in value.items()
        }
    found: dict[str, str] = {}
    for item in value:
        separator = "=" if "=" in item else ":"
        name, _, address = str(item).partition(separator)
        found[name] = address
    return found


def _merge(first: Any, second: Any) -> Any:
    """Mappings by key, lists one after the other, anything else replaced (compose-spec merge)."""
    if isinstance(first, dict) and isinstance(second, dict):
        merged = dict(first)
        for key, value in second.items():
            merged[key] = _merge(first[key], value) if key in first else value
        return merged
    if isinstance(first, list) and isinstance(second, list):
        return first + [each for each in second if each not in first]
    return second


def _target(
    name: str, service: dict[str, Any], project: dict[str, Any], env: Mapping[str, str]
) -> dict[str, Any]:
    build = service["build"]
    if not isinstance(build, dict):
        raise BakeError(f"service {name!r}: build is neither a text nor a mapping")
    for key in build:
        if key not in _BUILD_KEYS and not str(key).startswith("x-"):
            raise BakeError(f"service {name!r}: build has an unknown key {key!r}")
        if key in _REFUSED_KEYS and build[key]:
            raise LaminaError(
                f"service {name!r}: build.{key} is not supported", kind=Kind.UNSUPPORTED
            )
    target: dict[str, Any] = {}
    for key, field in (
        ("context", "context"),
        ("dockerfile", "dockerfile"),
        ("dockerfile_inline", "dockerfile-inline"),
        ("target", "target"),
        ("network", "network"),
    ):
        if build.get(key):
            target[field] = str(build[key])
    if build.get("shm_size"):
        target["shm-size"] = str(build["shm_size"])
    if build.get("args"):
        own = service.get("environment") or {}
        args = {k: own.get(k, env.get(k)) if v is None else v for k, v in build["args"].items()}
        target["args"] = {k: _text(v) for k, v in args.items() if v is not None}
    if build.get("labels"):
        target["labels"] = {k: _text(v) for k, v in build["labels"].items()}
    if build.get("additional_contexts"):
        contexts = build["additional_contexts"].items()
        target["contexts"] = {k: _context(str(v)) for k, v in contexts}
    if build.get("extra_hosts"):
        target["extra-hosts"] = build["extra_hosts"]
    for key, field in (
        ("tags", "tags"),
        ("platforms", "platforms"),
        ("cache_from", "cache-from"),
        ("cache_to", "cache-to"),
        ("entitlements", "entitlements"),
    ):
        if build.get(key):
            target[field] = [str(each) for each in build[key]]
    if build.get("ulimits"):
        target["ulimits"] = [_ulimit(k, v) for k, v in build["ulimits"].items()]
    if build.get("secrets"):
        target["secret"] = [_secret(each, project) for each in build["secrets"]]
    if build.get("ssh"):
        items = build["ssh"]
        pairs = items.items() if isinstance(items, dict) else [(each, None) for each in items]
        target["ssh"] = [f"{k}={v}" if v else str(k) for k, v in pairs]
    for key in ("sbom", "provenance"):
        if build.get(key):
            target.setdefault("attest", []).append(f"type={key},{build[key]}")
    for key, field in (("no_cache", "no-cache"), ("pull", "pull")):
        if build.get(key):
            target[field] = True
    _extend(target, build.get("x-bake") or {}, name)
    if not target.get("tags") and service.get("image"):
        target["tags"] = [str(service["image"])]
    return target


def _extend(target: dict[str, Any], extension: dict[str, Any], name: str) -> None:
    for key, value in extension.items():
        field = _EXTENSION.get(key)
        if field is None:
            raise BakeError(f"service {name!r}: x-bake has an unknown key {key!r}")
        if key in {"pull", "no-cache"}:
            target[field] = bool(value)
        elif key == "contexts":
            own = {k: _context(str(v)) for k, v in value.items()}
            target[field] = {**own, **target.get(field, {})}
        else:
            items = value.split() if isinstance(value, str) else [str(each) for each in value]
            target[field] = list(dict.fromkeys([*target.get(field, []), *items]))


def _context(value: str) -> str:
    for prefix in ("service:", "target:"):
        if value.startswith(prefix):
            return "target:" + value.removeprefix(prefix).replace(".", "_")
    return value


def _secret(item: Any, project: dict[str, Any]) -> str:
    source = str(item.get("source", "")) if isinstance(item, dict) else str(item)
    body = (project.get("secrets") or {}).get(source) or {}
    if body.get("external"):
        raise LaminaError(f"unsupported external secret {source}", kind=Kind.UNSUPPORTED)
    text = f"id={source}"
    if body.get("file"):
        text += f",src={body['file']}"
    if body.get("environment"):
        text += f",env={body['environment']}"
    return text


def _ulimit(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{name}={value.get('soft', 0)}:{value.get('hard', 0)}"
    return f"{name}={value}:{value}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
