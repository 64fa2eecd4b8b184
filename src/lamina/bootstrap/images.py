# SPDX-License-Identifier: Apache-2.0
"""Base images: the tree that was asked for, packed into one layer and named."""

from __future__ import annotations

from lamina.bootstrap.busybox import (
    applets,
    busybox_items,
    busybox_tree,
    check_busybox,
    host_busybox,
)
from lamina.bootstrap.debian import debian_request, find_tool
from lamina.bootstrap.foreignbusybox import applets_of, fetch_busybox
from lamina.bootstrap.options import PATH, BootstrapOptions, debian_architecture, tool_env
from lamina.container.emulation import require_emulation
from lamina.errors import Kind, LaminaError
from lamina.image.changes import changed, with_env
from lamina.image.pack import Packed, PackOptions, pack_image
from lamina.image.platforms import join_names
from lamina.image.times import format_time
from lamina.spec.config import RunConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.events import Emitter
    from lamina.layer.entry import Item, Items
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

DISTRIBUTIONS = ("debian", "ubuntu")


def bootstrap(
    store: Store, options: BootstrapOptions, *, key: str, emit: Emitter, cancel: CancelToken
) -> Packed:
    """Make the image and name it; progress lines are notices. A name that means an image of another
    platform means both afterwards (`image.platforms`).

    Raises:
        LaminaError: USAGE for what cannot be asked, UNSUPPORTED for an unknown suite, SYSTEM for a
            missing tool, UNAVAILABLE for a mirror that does not answer, NOT_FOUND for a package.
    """
    name, _, suite = options.what.partition(":")
    if name == "busybox":
        check_busybox(options, suite)
        config = changed(_config(options, ("sh",)), options.changes)
        with store.lease("bootstrap"):
            tree = _busybox(store, options, cancel)
            return _pack(store, tree, config, options, key=key, cancel=cancel)
    if name not in DISTRIBUTIONS:
        raise LaminaError(
            f"cannot bootstrap {options.what!r}",
            kind=Kind.UNSUPPORTED,
            hint="known: debian:SUITE, ubuntu:SUITE (with an Ubuntu mirror), busybox",
        )
    config = changed(_config(options, ("bash",)), options.changes)
    request = debian_request(options, name, suite or "stable")
    _require_emulation(options)
    tool = find_tool(options)
    with store.lease("bootstrap"), tool(request, store, emit, cancel) as items:
        return _pack(store, items, config, options, key=key, cancel=cancel)


def _require_emulation(options: BootstrapOptions) -> None:
    """The packages' own programs run while they are installed."""
    if options.host is None or options.host.runs(options.platform):
        return
    require_emulation(options.platform.architecture, host=options.host.architecture)


def _config(options: BootstrapOptions, command: tuple[str, ...]) -> RunConfig:
    return with_env(RunConfig(env=(("PATH", PATH),), cmd=command), options.env)


def _pack(
    store: Store,
    items: Items,
    config: RunConfig,
    options: BootstrapOptions,
    *,
    key: str,
    cancel: CancelToken,
) -> Packed:
    seconds = options.created if options.epoch is None else options.epoch
    words = ["lamina bootstrap", options.what]
    if options.include:
        words.append(f"--include {','.join(options.include)}")
    packing = PackOptions(
        platform=options.platform,
        created=format_time(seconds),
        config=config,
        created_by=" ".join(words),
        clamp_mtime=options.epoch,
    )
    packed = pack_image(store, items, packing, key=f"bootstrap {key}", cancel=cancel)
    join_names(store, options.names, packed.target, options.platform, cancel=cancel)
    return packed


def _busybox(store: Store, options: BootstrapOptions, cancel: CancelToken) -> list[Item]:
    if options.host is None or options.platform == options.host:
        return busybox_items(options.search_path)
    places = applets(host_busybox(options.search_path))
    program = fetch_busybox(
        debian_architecture(options.platform),
        scratch=f"{store.root}/ingest",
        env=tool_env(options),
        cancel=cancel,
    )
    return busybox_tree(program.data, program.mtime, applets_of(program.data, places))
