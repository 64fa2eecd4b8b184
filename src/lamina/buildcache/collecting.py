# SPDX-License-Identifier: Apache-2.0
"""What a build has to export: the records of its steps and the documents of its base images.

A step's records are those of the store (or of imported caches) with its result and its op, so that
keys by content and by the base's layers travel too, and no other project's records do. Where the
build lay is left out; secrets are in no key.
"""

from __future__ import annotations

from lamina.buildcache.codec import BaseImage, Remembered
from lamina.errors import LaminaError
from lamina.plan.ops import ImageSource, LayerOp
from lamina.solver.keytree import KeyTree, with_site
from lamina.spec import mediatype
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index, Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamina.buildcache.importing import Imports
    from lamina.builder.build import Ended
    from lamina.plan.graph import Plan
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import DiffID, Stack
    from lamina.store.ports import Store


def collect_records(
    plan: Plan, store: Store, *, ended: Ended, imports: Imports | None
) -> list[Remembered]:
    """The records of every step of the plan whose result is known, each key once."""
    wanted: list[tuple[str, Stack]] = []
    for vertex in plan.vertices:
        key = ended.keys.get(vertex.digest)
        if key is None or not isinstance(vertex.op, LayerOp):
            continue
        _, result = ended.ends.get(vertex.digest, (None, None))
        if result is None:  # nobody needed it: all its users were cached
            result = _known_result(Digest.parse(key), store, imports)
        if result is not None:
            wanted.append((key, result))
    return _records_of(wanted, store, imports)


def _known_result(key: Digest, store: Store, imports: Imports | None) -> Stack | None:
    found = store.metadata.get_cache([key])
    if found is not None:
        return found.result
    remembered = imports.find([key]) if imports is not None and imports.is_read else None
    return remembered[0].result if remembered is not None else None


def _records_of(
    wanted: Sequence[tuple[str, Stack]], store: Store, imports: Imports | None
) -> list[Remembered]:
    results = tuple(dict.fromkeys(result for _, result in wanted))
    by_result: dict[Stack, list[Remembered]] = {result: [] for result in results}
    for row in store.key_history.of_results(results):
        by_result[row.result].append(
            Remembered(row.key, row.result, row.name, row.tree, row.created)
        )
    if imports is not None:
        for result in results:
            by_result[result] += imports.of_result(result)
    found: dict[Digest, Remembered] = {}
    for key, result in wanted:
        own = next((each for each in by_result[result] if str(each.key) == key), None)
        if own is None:
            continue
        op = KeyTree(key, own.name, own.tree).op
        for each in by_result[result]:
            if each is own or (op and KeyTree(str(each.key), each.name, each.tree).op == op):
                tree = with_site(each.tree, "")
                bare = Remembered(each.key, each.result, each.name, tree, each.created)
                found.setdefault(each.key, bare)
    return list(found.values())


def of_stacks(records: Iterable[Remembered], stacks: Iterable[Stack]) -> list[Remembered]:
    """The records whose result has no layers but those of one of the stacks (`mode=min`)."""
    sets = [frozenset(stack) for stack in stacks]
    return [each for each in records if any(layers.issuperset(each.result) for layers in sets)]


def collect_images(plan: Plan, store: Store, imports: Imports | None) -> list[BaseImage]:
    """The documents of the plan's base images, as far as they are known here."""
    found: list[BaseImage] = []
    for vertex in plan.vertices:
        op = vertex.op
        if not isinstance(op, ImageSource):
            continue
        documents = _documents(op, store)
        if documents is None and imports is not None:
            documents = imports.documents(op.reference, op.platform)
        if documents is not None:
            found.append(BaseImage(op.reference, op.platform, documents))
    return found


def _documents(op: ImageSource, store: Store) -> tuple[str, ...] | None:
    named = store.metadata.get_name(op.reference)
    if named is None:
        return None
    try:
        return tuple(raw.decode() for raw in _path_down(store, named.target, op.manifest))
    except (LaminaError, UnicodeDecodeError):
        return None  # not whole in the store: the next build asks the registry


def _path_down(store: Store, root: Descriptor, manifest: Digest) -> list[bytes]:
    """The documents from `root` to the config of the image `manifest`."""
    raw = store.content.read(root.digest, limit=MAX_DOCUMENT)
    if root.digest == manifest:
        config = Manifest.parse(raw, media_type=root.media_type).config
        return [raw, store.content.read(config.digest, limit=MAX_DOCUMENT)]
    if root.media_type in mediatype.INDEXES:
        for entry in Index.parse(raw, media_type=root.media_type).manifests:
            if entry.digest == manifest:
                return [raw, *_path_down(store, entry, manifest)]
    raise LaminaError(f"{root.digest} does not hold {manifest}")


def layers_of(records: Iterable[Remembered]) -> dict[DiffID, Stack]:
    """Every layer of the results, and a stack that ends with it."""
    found: dict[DiffID, Stack] = {}
    for each in records:
        for position, diff_id in enumerate(each.result):
            found.setdefault(diff_id, each.result[: position + 1])
    return found
