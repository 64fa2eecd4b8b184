# SPDX-License-Identifier: Apache-2.0
"""Targets and groups of a bake definition: read, merged, inherited, overridden, resolved.

A target is a mapping with the names of bake's reference; `FIELDS` says what each holds. The rules
(which fields merge, which replace) and the JSON of `--print` are buildx's.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re

from lamina.bake.compose import is_compose, parse_compose
from lamina.bake.hcl import Block, Definition, parse_hcl, parse_json
from lamina.bake.scope import Scope
from lamina.bake.values import BakeError, to_text
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Fields = dict[str, Any]

DEFAULT_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
MAX_CHAIN = 200  # groups or targets that lead from one to the next
_TEXT, _BOOLEAN, _LIST, _MAP, _SPECS = "text", "boolean", "list", "map", "specs"
# in the order of buildx's struct, which is that of its JSON; the kind, and whether lists add up
FIELDS: dict[str, tuple[str, bool]] = {
    "description": (_TEXT, False),
    "inherits": (_LIST, True),
    "annotations": (_LIST, True),
    "attest": (_SPECS, True),
    "context": (_TEXT, False),
    "contexts": (_MAP, True),
    "dockerfile": (_TEXT, False),
    "dockerfile-inline": (_TEXT, False),
    "args": (_MAP, True),
    "labels": (_MAP, True),
    "tags": (_LIST, False),
    "cache-from": (_SPECS, True),
    "cache-to": (_SPECS, False),
    "target": (_TEXT, False),
    "secret": (_SPECS, True),
    "ssh": (_SPECS, True),
    "platforms": (_LIST, False),
    "output": (_SPECS, False),
    "pull": (_BOOLEAN, False),
    "no-cache": (_BOOLEAN, False),
    "network": (_TEXT, False),
    "no-cache-filter": (_LIST, True),
    "shm-size": (_TEXT, False),
    "ulimits": (_LIST, True),
    "call": (_TEXT, False),
    "entitlements": (_LIST, True),
    "extra-hosts": (_MAP, True),
}
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_ESCAPED = frozenset({"annotations", "dockerfile-inline", "labels", "args", "extra-hosts"})
# names that --set has for fields
_SET_NAMES = {"platform": "platforms", "secrets": "secret"}
_DEDUPLICATED = ("annotations", "tags", "platforms", "no-cache-filter", "ulimits", "entitlements")


class Bake(Record):
    """What was read: every target and group, and the variables with their values."""

    targets: Mapping[str, Fields]
    groups: Mapping[str, Fields]
    variables: Mapping[str, Any]
    descriptions: Mapping[str, str]


def read_definition(
    files: Sequence[tuple[str, str]],
    *,
    builtins: Mapping[str, str],
    variables: Mapping[str, str],
    env: Mapping[str, str],
    dotenv: Mapping[str, str],
) -> Bake:
    """The definition in `files` (name, text), merged in order, compose files first.

    `variables` (--var) win over `env` for variables; compose files also see `dotenv`.

    Raises:
        BakeError: a file or an expression is wrong.
        LaminaError: kind UNSUPPORTED for what bake has and lamina does not.
    """
    compose: list[tuple[str, str]] = []
    definitions: list[Definition] = []
    for name, text in files:
        lowered = name.lower()
        if lowered.endswith((".yml", ".yaml")):
            compose.append((name, text))
        elif lowered.endswith(".json"):
            definitions.append(parse_json(text, name=name))
        elif lowered.endswith(".hcl") or not is_compose(text):
            is_json = not lowered.endswith(".hcl") and text.lstrip().startswith("{")
            parse = parse_json if is_json else parse_hcl
            definitions.append(parse(text, name=name))
        else:
            compose.append((name, text))
    targets: dict[str, Fields] = {}
    groups: dict[str, Fields] = {}
    if compose:
        found = parse_compose(compose, {**dotenv, **env, **variables})
        for name, fields in found["target"].items():
            targets[_checked_name(name)] = _fields(fields, f"service {name!r}")
        groups.update(found["group"])

    def lookup(name: str) -> str | None:
        return variables.get(name, env.get(name))

    scope = Scope(definitions, builtins=builtins, lookup=lookup)
    scope.check()
    for block in scope.blocks:
        if block.type == "group":
            groups[_checked_name(block.label)] = _group(scope, block)
        else:
            _add_target(scope, block, targets, groups)
    return Bake(
        targets,
        groups,
        {name: scope.variable(name) for name in scope.variables},
        {name: _description(scope, block) for name, block in scope.variables.items()},
    )


def _description(scope: Scope, block: Block) -> str:
    source = block.attributes.get("description")
    return str(scope.value(source)) if source is not None else ""


def _group(scope: Scope, block: Block) -> Fields:
    fields: Fields = {}
    for key, source in block.attributes.items():
        if key in {"matrix", "name"}:
            raise BakeError(f"{block.origin}: {key} is not supported for groups")
        if key not in {"targets", "description"}:
            raise BakeError(f"{block.origin}: group {block.label!r} has no argument {key!r}")
        value = scope.value(source)
        fields[key] = _texts(value, f"group {block.label!r}: {key}") if key == "targets" else value
    if "targets" not in fields:
        raise BakeError(f"{block.origin}: group {block.label!r} has no targets")
    return fields


def _add_target(
    scope: Scope, block: Block, targets: dict[str, Fields], groups: dict[str, Fields]
) -> None:
    """Add the block's target, or those of its matrix and a group of them."""
    where = f"{block.origin}: target {block.label!r}"
    _checked_name(block.label)
    if "name" in block.attributes and "matrix" not in block.attributes:
        raise BakeError(f"{where}: name requires matrix")
    made: list[str] = []
    for local in _matrix(scope, block, where):
        name = block.label
        if "name" in block.attributes:
            name = _checked_name(to_text(scope.value(block.attributes["name"], local)))
        values = {
            key: scope.value(source, local)
            for key, source in block.attributes.items()
            if key not in {"name", "matrix"}
        }
        fields = _fields(values, where)
        targets[name] = merge(targets[name], fields) if name in targets else fields
        made.append(name)
    made = list(dict.fromkeys(made))
    if made != [block.label]:
        groups[block.label] = {"targets": made}


def _matrix(scope: Scope, block: Block, where: str) -> list[dict[str, Any]]:
    source = block.attributes.get("matrix")
    if source is None:
        return [{}]
    value = scope.value(source)
    if not isinstance(value, dict):
        raise BakeError(f"{where}: matrix must be a map")
    if "name" not in block.attributes:
        raise BakeError(f"{where}: matrix needs a name")
    combinations: list[dict[str, Any]] = [{}]
    for key, items in value.items():
        if not isinstance(items, list):
            raise BakeError(f"{where}: matrix values must be a list")
        combinations = [{**old, key: item} for item in items for old in combinations]
    return combinations


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BakeError(f'invalid target name {name!r}: only "[a-zA-Z0-9_-]+" are allowed')
    return name


def _fields(values: Mapping[str, Any], where: str) -> Fields:
    """The values by their fields' kinds. Raises BakeError for unknown ones and wrong types."""
    fields: Fields = {}
    for key, value in values.items():
        if key not in FIELDS:
            raise BakeError(f"{where}: unsupported argument {key!r}")
        if value is None:
            continue
        kind = FIELDS[key][0]
        if kind == _TEXT:
            fields[key] = to_text(value)
        elif kind == _BOOLEAN:
            if not isinstance(value, bool):
                raise BakeError(f"{where}: {key} is not a boolean")
            fields[key] = value
        elif kind == _LIST:
            fields[key] = _texts(value, f"{where}: {key}")
        elif kind == _SPECS:
            if not isinstance(value, list):
                raise BakeError(f"{where}: {key} is not a list")
            fields[key] = [spec(key, each) for each in value if each not in (None, "")]
        else:
            if not isinstance(value, dict):
                raise BakeError(f"{where}: {key} is not a map")
            fields[key] = {k: None if v is None else to_text(v) for k, v in value.items()}
    return fields


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise BakeError(f"{where} is not a list")
    return [to_text(each) for each in value if each is not None]


def spec(field: str, value: Any) -> dict[str, Any]:
    """An output, secret, cache... given as an object or as `key=value,...`, as an object."""
    if isinstance(value, dict):
        return {k: v if isinstance(v, list) else to_text(v) for k, v in value.items()}
    text = to_text(value)
    if field == "ssh":
        id, _, paths = text.partition("=")
        return {"id": id, "paths": paths.split(",")} if paths else {"id": id}
    parts = text.split(",")
    if field in {"cache-from", "cache-to"} and len(parts) == 1 and "=" not in text:
        return {"ref": text, "type": "registry"}
    if field == "output" and len(parts) == 1 and "=" not in text:
        return {"dest": "-", "type": "tar"} if text == "-" else {"dest": text, "type": "local"}
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, each = part.partition("=")
        if not equals and field == "attest":
            found["disabled"] = "true" if key == "false" else "false"
        elif not equals:
            raise BakeError(f"invalid {field} {text!r}: expected key=value, got {part!r}")
        else:
            found[key.strip().lower()] = each
    if field == "secret":
        found = {{"source": "src"}.get(key, key): each for key, each in found.items()}
    return dict(sorted(found.items()))


def merge(first: Fields, second: Fields) -> Fields:
    """`second` on top of `first`: maps by key, lists that add up, the rest replaced."""
    merged = dict(first)
    for key, value in second.items():
        kind, adds = FIELDS[key]
        if kind == _MAP:
            own = {k: v for k, v in value.items() if v is not None or key == "contexts"}
            merged[key] = {**first.get(key, {}), **own}
        elif adds:
            merged[key] = [*first.get(key, []), *value]
        else:
            merged[key] = value
    return merged


# Resolving ----------------------------------------------------------------------------------------


def resolve(
    bake: Bake, names: Sequence[str], overrides: Sequence[str], *, env: Mapping[str, str]
) -> tuple[dict[str, Fields], dict[str, Fields]]:
    """(groups, targets) that `names` (targets, groups, wildcards; empty: `default`) need.

    `overrides` are `--set` texts. Targets that others link to (`target:NAME`) are among the
    targets, with `cacheonly` as their output if nothing asked for them.

    Raises:
        BakeError: a name is not known, an override is wrong, or targets need each other.
    """
    wanted = [
        found
        for name in names or ["default"]
        for found in _matching(bake, name.replace(".", "_") if "*" not in name else name)
    ]
    changes = _overrides(bake, overrides, env)
    targets: dict[str, Fields] = {}
    groups: dict[str, Fields] = {}
    for name in dict.fromkeys(wanted):
        members, through = _members(bake, name, ())
        for member in members:
            targets[member] = _target(bake, member, changes)
        groups.update((group, bake.groups[group]) for group in through)
    default: list[str] = list(groups.get("default", {}).get("targets", []))
    default += [name for name in wanted if not (name == "default" and "default" in groups)]
    if default:
        groups["default"] = {**groups.get("default", {}), "targets": sorted(set(default))}
    for name in list(targets):
        _link(bake, name, targets, changes, ())
    return groups, targets


def _matching(bake: Bake, pattern: str) -> list[str]:
    if not any(letter in pattern for letter in "*?[]"):
        return [pattern]
    found = [name for name in (*bake.groups, *bake.targets) if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise BakeError(f'could not find any target matching "{pattern}"')
    return found


def _members(bake: Bake, name: str, visited: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The targets of a group, and the groups on the way; a target is its own member."""
    if name not in bake.groups or name in visited:
        return ([] if name in visited else [name]), []
    if name in bake.targets and bake.groups[name].get("targets") == [name]:
        return [name], []
    _check_chain(name, visited, "groups")
    targets: list[str] = []
    through = [name]
    for member in bake.groups[name]["targets"]:
        found, groups = _members(bake, member, (*visited, name))
        targets += found
        through += groups
    return list(dict.fromkeys(targets)), list(dict.fromkeys(through))


def _check_chain(name: str, visited: tuple[str, ...], what: str) -> None:
    if len(visited) >= MAX_CHAIN:
        raise BakeError(
            f"more than {MAX_CHAIN} {what} one after the other, from {visited[0]} to {name}"
        )


def _target(bake: Bake, name: str, changes: Mapping[str, list[tuple[str, str | None]]]) -> Fields:
    fields = _inherited(bake, name, changes, ())
    fields.pop("inherits", None)
    fields["context"] = _clean(fields.get("context") or ".")
    if not fields.get("dockerfile"):
        fields["dockerfile"] = "Dockerfile"
    return fields


def _clean(path: str) -> str:
    """A local path without needless parts; an address as it is."""
    local = path.removeprefix("cwd://")
    if "://" in local or local.startswith("git@"):
        return path
    return posixpath.normpath(local)


def _inherited(
    bake: Bake,
    name: str,
    changes: Mapping[str, list[tuple[str, str | None]]],
    visited: tuple[str, ...],
) -> Fields:
    own = bake.targets.get(name)
    if own is None:
        raise BakeError(f"failed to find target {name}")
    _check_chain(name, visited, "inherited targets")
    fields: Fields = {}
    for parent in own.get("inherits", []):
        if parent not in (*visited, name):
            fields = merge(fields, _inherited(bake, parent, changes, (*visited, name)))
    fields = merge(fields, own)
    for key, value in changes.get(name, []):
        _set(fields, key, value)
    for key in _DEDUPLICATED:
        if key in fields:
            fields[key] = [each for each in dict.fromkeys(fields[key]) if each]
    if fields.get("network") == "host":
        fields["entitlements"] = list(
            dict.fromkeys([*fields.get("entitlements", []), "network.host"])
        )
    contexts = {key: value for key, value in fields.pop("contexts", {}).items() if value}
    return {**fields, **({"contexts": contexts} if contexts else {})}


def _link(
    bake: Bake,
    name: str,
    targets: dict[str, Fields],
    changes: Mapping[str, list[tuple[str, str | None]]],
    visited: tuple[str, ...],
) -> None:
    _check_chain(name, visited, "linked targets")
    for value in targets[name].get("contexts", {}).values():
        if not value.startswith("target:"):
            continue
        other = value.removeprefix("target:")
        if other == name:
            raise BakeError(f"target {other} cannot link to itself")
        if other in visited:
            raise BakeError(f"infinite loop from {name} to {other}")
        if other not in targets:
            targets[other] = {**_target(bake, other, changes), "output": [{"type": "cacheonly"}]}
        _link(bake, other, targets, changes, (*visited, name))


def _overrides(
    bake: Bake, texts: Sequence[str], env: Mapping[str, str]
) -> dict[str, list[tuple[str, str | None]]]:
    """Target name -> (key, value) of every `--set` that is for it, in order."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        pattern, dot, key = left.partition(".")
        if not dot or not key:
            raise BakeError(f"invalid override key {left}, expected target.name")
        if not equals and not key.startswith("args."):
            raise BakeError(f"invalid override {text}, expected target.name=value")
        if not equals:
            name = key.removeprefix("args.")
            if name not in env:
                continue
            value = env[name]
        names = [name for name in bake.targets if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise BakeError(f"could not find any target matching '{pattern}'")
        for name in names:
            found.setdefault(name, []).append((key, value))
    for changes in found.values():
        _mark_first(changes)
    return found


def _mark_first(changes: list[tuple[str, str | None]]) -> None:
    """A list's first override clears what the file says; `+=` and later ones add to it."""
    seen: set[str] = set()
    position = 0
    while position < len(changes):
        key = changes[position][0]
        name = key.removesuffix("+")
        field = _SET_NAMES.get(name.partition(".")[0], name.partition(".")[0])
        kind = FIELDS.get(field, ("", False))[0]
        if kind in {_LIST, _SPECS} and name not in seen and not key.endswith("+"):
            seen.add(name)
            if field not in {"annotations", "entitlements", "attest"}:
                changes.insert(position, (name, None))
                position += 1
        position += 1


def _set(fields: Fields, key: str, value: str | None) -> None:
    name, _, rest = key.removesuffix("+").partition(".")
    if name in {"push", "load"}:
        _set_export(fields, name, _parse_boolean(name, value or ""))
        return
    field = _SET_NAMES.get(name, name)
    if field not in FIELDS or field in {"inherits", "description", "dockerfile-inline"}:
        raise BakeError(f"unknown key: {name}")
    kind = FIELDS[field][0]
    if kind == _MAP:
        if not rest:
            raise BakeError(f"invalid key {key}, {name} requires name")
        fields[field] = {**fields.get(field, {}), rest: value or ""}
    elif kind == _BOOLEAN:
        fields[field] = _parse_boolean(name, value or "")
    elif kind == _TEXT:
        fields[field] = value or ""
    elif value is None:
        fields[field] = []
    else:
        added = [spec(field, value)] if kind == _SPECS and value else [value] if value else []
        fields[field] = [*fields.get(field, []), *added]


def _set_export(fields: Fields, name: str, value: bool) -> None:  # noqa: FBT001  # the value that was set
    if not value:
        return
    outputs: list[dict[str, Any]] = fields.get("output", [])
    if name == "push":
        for output in outputs:
            if output.get("type") in {"image", "registry"}:
                output["push"] = "true"
                return
        fields["output"] = [*outputs, {"type": "image", "push": "true"}]
        return
    for output in outputs:
        if output.get("type") == "docker" and not output.get("dest"):
            return
        if output.get("type") not in {"docker", "image", "registry", "oci"}:
            return
    fields["output"] = [*outputs, {"type": "docker"}]


def _parse_boolean(name: str, value: str) -> bool:
    if value.lower() not in {"1", "t", "true", "0", "f", "false"}:
        raise BakeError(f"invalid value {value} for boolean key {name}")
    return value.lower() in {"1", "t", "true"}


# --print ------------------------------------------------------------------------------------------


def print_json(groups: Mapping[str, Fields], targets: Mapping[str, Fields]) -> str:
    """The definition as buildx prints it: Go's JSON, two spaces, names sorted."""
    document: dict[str, Any] = {}
    if groups:
        document["group"] = {name: _ordered_group(groups[name]) for name in sorted(groups)}
    document["target"] = {name: target_json(targets[name]) for name in sorted(targets)}
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # encoding/json escapes these for HTML
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _ordered_group(group: Fields) -> Fields:
    return {key: group[key] for key in ("description", "targets") if group.get(key)}


def target_json(fields: Fields) -> Fields:
    """The target's fields in order, empty ones left out, templates escaped so it can be read again."""
    shown: Fields = {}
    for key in FIELDS:
        value = fields.get(key)
        if value is None or value in ([], {}) or (key == "description" and not value):
            continue
        if isinstance(value, dict):
            value = {name: value[name] for name in sorted(value)}
        shown[key] = _escape(value) if key in _ESCAPED else value
    return shown


def _escape(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, list):
        return [_escape(each) for each in value]
    if isinstance(value, dict):
        return {key: _escape(each) for key, each in value.items()}
    return value


def linked(targets: Mapping[str, Fields]) -> list[str]:
    """The names, a target after those that it links to."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for value in targets[name].get("contexts", {}).values():
            if value.startswith("target:"):
                visit(value.removeprefix("target:"))
        order.append(name)

    for name in sorted(targets):
        visit(name)
    return order
