# SPDX-License-Identifier: Apache-2.0
"""Resolved bake targets as build requests. What lamina cannot build is refused by field."""

from __future__ import annotations

import io
import os

from lamina.app.buildcontext import read_context
from lamina.app.buildrequest import BuildRequest
from lamina.app.contexts import BuildContextSource, context_source
from lamina.cli.build_flags import (
    annotated,
    cache_places,
    is_index,
    parse_annotations,
    platforms_of,
)
from lamina.cli.build_steps import secrets, ssh_agents, step_limits
from lamina.cli.values import host_entries, parse_epoch, parse_size
from lamina.dockerfile.bases import context_name
from lamina.errors import Kind, LaminaError
from lamina.exporter.options import parse_output
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lamina.app.buildcontext import BuildContext
    from lamina.cli.context import Context
    from lamina.exporter.ports import Output
    from lamina.spec.platform import Platform

    Fields = dict[str, Any]


class BakeHost(Record):
    """What every request is made for: where paths begin, and the options of the command.

    `allow` are the entitlements that the command line grants.
    """

    context: Context
    platform: Platform
    jobs: int | None
    allow: tuple[str, ...] = ()

    @property
    def cwd(self) -> str:
        """The directory that relative paths begin at."""
        return self.context.cwd


def requests_of(targets: Mapping[str, Fields], host: BakeHost) -> dict[str, BuildRequest]:
    """Target name -> request.

    Raises:
        LaminaError: NOT_FOUND for a context or Dockerfile, UNSUPPORTED for what is refused, USAGE
            for values that the build's own flags would refuse.
    """
    found: dict[str, BuildRequest] = {}
    for name, fields in targets.items():
        try:
            found[name] = _request(fields, host)
        except LaminaError as error:
            raise error.about(f"target {name}") from error
    # one solve: what steps may mount, and their limits, are those of all targets
    given = _shared(targets, host)
    return {name: replace(request, **given) for name, request in found.items()}


def _shared(targets: Mapping[str, Fields], host: BakeHost) -> dict[str, Any]:
    """Secrets, agents and limits, which all targets share.

    Raises:
        LaminaError: kind UNSUPPORTED if two targets mean different things by one name.
    """
    from argparse import Namespace

    found: dict[str, dict[str, str]] = {"secret": {}, "ssh": {}}
    for field, texts in found.items():
        for fields in targets.values():
            for each in fields.get(field, ()):
                text = _secret_text(each) if field == "secret" else _agent_text(each)
                if texts.setdefault(each.get("id", ""), text) != text:
                    raise LaminaError(
                        f"two targets have different sources of {field} {each.get('id', '')!r}",
                        kind=Kind.UNSUPPORTED,
                        hint="bake them one after the other, or give them different ids",
                    )
    limits = {tuple(fields.get("ulimits", ())) for fields in targets.values()}
    if len(limits) > 1:
        raise LaminaError(
            "targets with different ulimits cannot be baked together",
            kind=Kind.UNSUPPORTED,
            hint="bake them one after the other",
        )
    blank = Namespace(
        secret=list(found["secret"].values()),
        ssh=list(found["ssh"].values()),
        ulimit=list(next(iter(limits), ())),
        memory="", memory_swap="", cpus="", cpu_period="", cpu_quota="", cpu_shares="",
        cpuset_cpus="", cpuset_mems="",
    )  # fmt: skip
    return {
        "secrets": secrets(blank, host.context),
        "agents": ssh_agents(blank, host.context),
        "limits": step_limits(blank),
    }


def _secret_text(fields: Fields) -> str:
    return ",".join(f"{key}={value}" for key, value in fields.items())


def _agent_text(fields: Fields) -> str:
    paths = fields.get("paths")
    return f"{fields.get('id', '')}={','.join(paths)}" if paths else str(fields.get("id", ""))


def _request(fields: Fields, host: BakeHost) -> BuildRequest:
    _check(fields, host)
    sources = _sources(fields, host)
    args = {name: value for name, value in fields.get("args", {}).items() if value is not None}
    labels = {name: value for name, value in fields.get("labels", {}).items() if value is not None}
    platforms = _platforms(fields, host)
    return BuildRequest(
        context=sources.directory,
        dockerfile=sources.dockerfile,
        dockerfile_name=sources.dockerfile_name,
        ignore=sources.ignore,
        platform=platforms[0],
        platforms=platforms if is_index(platforms, args) else (),
        build_platform=host.platform,
        build_contexts=_contexts(fields, host),
        tags=tuple(fields.get("tags", ())),
        target=fields.get("target", ""),
        build_args=tuple(args.items()),
        labels=tuple(labels.items()),
        no_cache=bool(fields.get("no-cache")),
        pull=bool(fields.get("pull")),
        no_cache_filter=tuple(fields.get("no-cache-filter", ())),
        outputs=_outputs(fields, host),
        epoch=parse_epoch(args.get("SOURCE_DATE_EPOCH", "")),
        jobs=host.jobs,
        network=fields.get("network") or "default",
        extra_hosts=_hosts(fields),
        shm_size=_size(fields.get("shm-size", "")),
        privileged=host.context.uid == 0,
        allow=host.allow,
        **cache_places(
            map(_fields_text, fields.get("cache-from", ())),
            map(_fields_text, fields.get("cache-to", ())),
            args,
            lambda path: os.path.join(host.cwd, path),
        ),
    )


def _check(fields: Fields, host: BakeHost) -> None:
    for attestation in fields.get("attest", ()):
        if attestation.get("disabled") != "true":
            raise LaminaError(
                f"attest type={attestation.get('type', '')} is not supported: "
                "attestations are not done yet",
                kind=Kind.UNSUPPORTED,
            )
    if fields.get("network", "default") not in {"", "default", "none", "host"}:
        raise LaminaError(f"network {fields['network']} is not supported", kind=Kind.UNSUPPORTED)
    for entitlement in fields.get("entitlements", ()):
        if entitlement not in host.allow:
            raise LaminaError(
                f"additional privileges requested: {entitlement}",
                kind=Kind.DENIED,
                hint=f"pass --allow={entitlement} to grant it",
            )


def _sources(fields: Fields, host: BakeHost) -> BuildContext:
    context = _path(fields["context"])
    if context == "-" or fields["dockerfile"] == "-":
        raise LaminaError("standard input is not allowed in bake", kind=Kind.USAGE)
    inline = fields.get("dockerfile-inline")
    if inline is not None:
        return read_context(context, "-", cwd=host.cwd, stdin=io.BytesIO(inline.encode()))
    dockerfile = _path(fields["dockerfile"])
    if dockerfile == "Dockerfile":
        return read_context(context, cwd=host.cwd)
    return read_context(context, os.path.join(context, dockerfile), cwd=host.cwd)


def _contexts(fields: Fields, host: BakeHost) -> tuple[BuildContextSource, ...]:
    sources = []
    for name, where in fields.get("contexts", {}).items():
        if where.startswith("target:"):
            linked = where.removeprefix("target:")
            sources.append(BuildContextSource(context_name(name), "target", linked))
        else:
            sources.append(context_source(name, _path(where), cwd=host.cwd))
    return tuple(sources)


def _path(text: str) -> str:
    local = text.removeprefix("cwd://")
    return text if "://" in local else os.path.normpath(local)


def _platforms(fields: Fields, host: BakeHost) -> tuple[Platform, ...]:
    return platforms_of(fields.get("platforms") or (), host=host.platform)


def _outputs(fields: Fields, host: BakeHost) -> tuple[Output, ...]:
    outputs = []
    for each in fields.get("output", ()):
        output = parse_output(_fields_text(each))
        if output.dest not in {"", "-"}:
            output = replace(output, dest=os.path.join(host.cwd, output.dest))
        outputs.append(output)
    return annotated(tuple(outputs), parse_annotations(fields.get("annotations", ())))


def _fields_text(fields: Fields) -> str:
    """The flag's text for an object of a bake file."""
    return ",".join(_csv(f"{key}={value}") for key, value in fields.items())


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


def _hosts(fields: Fields) -> tuple[tuple[str, str], ...]:
    given = fields.get("extra-hosts", {})
    return host_entries(
        f"{name}={address}"
        for name, value in given.items()
        if value
        for address in value.split(",")
    )


def _size(text: str) -> int:
    return parse_size(text, "shm-size") if text else 0
