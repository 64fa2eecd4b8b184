# SPDX-License-Identifier: Apache-2.0
"""The image a result becomes: config, history, times, compression, and rebuilds of nothing."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from lamina.errors import Cancelled, LaminaError
from lamina.events import Event, Progress, silent
from lamina.exporter.ports import Exported, Output
from lamina.exporter.table import make_exporter
from lamina.image.names import read_names
from lamina.image.resolve import find_image
from lamina.image.view import Image
from lamina.spec import mediatype
from lamina.spec.config import History
from lamina.start.record import replace
from lamina.tasks import CancelToken, Work
from lamina.testing.images import ResultMaker

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.exporter.ports import BuildResult
    from lamina.store.ports import Store

APP = "docker.io/library/app:latest"
EPOCH = 1_500_000_000


@pytest.fixture
def results(store: Store) -> ResultMaker:
    return ResultMaker(store)


def export(store: Store, result: BuildResult, output: Output = Output()) -> Exported:  # noqa: B008
    exporter = make_exporter(output)
    with store.lease("test"):
        return exporter.export(
            result, store, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
        ).finalize()


def image_of(store: Store, exported: Exported) -> Image:
    return find_image(store, str(exported.manifest))  # several may have one config


def blobs(store: Store) -> set[str]:
    return {str(blob.digest) for blob in store.content.walk()}


def test_config_has_the_whole_stack_and_dated_history(store: Store, results: ResultMaker) -> None:
    result = results("a", "b", names=(APP,))
    config = image_of(store, export(store, result)).config()
    assert config.diff_ids == result.diff_ids
    assert config.created == "2022-04-15T05:20:00Z"
    assert [entry.created for entry in config.history] == ["2023-11-14T22:13:20Z"] + [
        "2022-04-15T05:20:00Z"
    ] * 3
    assert find_image(store, "app").id == image_of(store, export(store, result)).id


def test_base_without_history_is_filled_up(store: Store, results: ResultMaker) -> None:
    result = results("a")
    bare = replace(result, config=replace(result.config, history=result.config.history[1:]))
    history = image_of(store, export(store, bare)).config().history
    assert sum(not entry.empty_layer for entry in history) == 2


def test_base_with_too_much_history_is_cut_to_its_layers(
    store: Store, results: ResultMaker
) -> None:
    result = results("a")
    extra = (History("2020-01-01T00:00:00Z", created_by="x"),) * 2
    long = replace(result, config=replace(result.config, history=(*extra, *result.config.history)))
    history = image_of(store, export(store, long)).config().history
    assert [entry.empty_layer for entry in history] == [True, True, False, False, True]


def test_unnamed_image_is_kept_and_found_by_id(store: Store, results: ResultMaker) -> None:
    exported = export(store, results("a"))
    assert exported.names == ()
    assert image_of(store, exported).descriptor().digest == exported.manifest


def test_names_are_set_by_finalize_only(store: Store, results: ResultMaker) -> None:
    exporter = make_exporter(Output())
    before = read_names(store)
    with store.lease("test"):
        pending = exporter.export(
            results("a", names=(APP,)),
            store,
            work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
        )
        assert read_names(store) == before
        pending.discard()
    assert read_names(store) == before


def test_rebuild_of_nothing_is_the_same_image_and_writes_nothing(
    store: Store, results: ResultMaker
) -> None:
    first = export(store, results("a", names=(APP,), created=1_650_000_000.0))
    before = blobs(store), read_names(store)
    again = results("a", names=(APP,), created=1_660_000_000.0, cached=True)
    assert export(store, again) == first
    assert (blobs(store), read_names(store)) == before


def test_a_step_that_ran_dates_the_image_anew(store: Store, results: ResultMaker) -> None:
    first = export(store, results("a", created=1_650_000_000.0))
    assert export(store, results("a", created=1_660_000_000.0)) != first


def test_rebuild_of_an_image_that_is_gone_makes_it_again(
    store: Store, results: ResultMaker
) -> None:
    result = results("a", "b")
    first = export(store, result)
    image = image_of(store, first)
    for digest in (image.id, image.layers()[1].descriptor().digest):
        store.content.delete(digest)
        again = results("a", "b", cached=True)
        assert export(store, again) == first
        assert store.content.exists(digest)


def test_damaged_export_record_is_a_miss(store: Store, results: ResultMaker) -> None:
    first = export(store, results("a"))
    (document,) = store.documents.list("export")
    for body in ("", "[]", '{"digest":"x"}', '{"mediaType":"a","digest":"sha256:0","size":1}'):
        store.documents.update("export", document.id, body)
        assert export(store, results("a", cached=True)) == first


def test_epoch_clamps_new_layers_and_dates_everything(store: Store, results: ResultMaker) -> None:
    base = Image.open(store, results.base.target)
    images = []
    for mtime in (1_600_000_000, 1_700_000_000):
        result = results("a", epoch=EPOCH, mtime=mtime, created=float(mtime))
        images.append(image_of(store, export(store, result)))
    assert images[0].id == images[1].id
    config = images[0].config()
    assert config.created == "2017-07-14T02:40:00Z"
    assert config.history[1].created == "2017-07-14T02:40:00Z"
    assert config.diff_ids[0] == base.config().diff_ids[0]
    assert images[0].layers()[0].descriptor() == base.layers()[0].descriptor()
    with images[0].layers()[1].uncompressed() as raw:
        data = raw.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [member.mtime for member in tar] == [EPOCH]


def test_epoch_later_than_every_file_keeps_the_layers(store: Store, results: ResultMaker) -> None:
    result = results("a", epoch=1_900_000_000)
    assert image_of(store, export(store, result)).config().diff_ids == result.diff_ids


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_new_layers_get_the_compression_and_the_base_keeps_its_own(
    store: Store, results: ResultMaker, compression: str
) -> None:
    result = results("a")
    plain = image_of(store, export(store, result, Output(compression=compression)))
    wanted = mediatype.OCI_LAYER_OF[compression]
    kept = [layer.descriptor().media_type for layer in plain.layers()]
    assert kept == [mediatype.OCI_LAYER_GZIP, wanted]
    forced = image_of(
        store, export(store, result, Output(compression=compression, force_compression=True))
    )
    assert {layer.descriptor().media_type for layer in forced.layers()} == {wanted}
    assert forced.config().diff_ids == plain.config().diff_ids


def test_docker_media_types_and_annotations(store: Store, results: ResultMaker) -> None:
    output = Output(oci_mediatypes=False, annotations=(("a", "1"),))
    manifest = image_of(store, export(store, results("a"), output)).manifest()
    assert manifest.media_type == mediatype.DOCKER_MANIFEST
    assert manifest.config.media_type == mediatype.DOCKER_CONFIG
    assert {layer.media_type for layer in manifest.layers} == {mediatype.DOCKER_LAYER_GZIP}
    assert manifest.annotations == (("a", "1"),)


def test_stack_that_does_not_begin_with_the_base_is_refused(
    store: Store, results: ResultMaker
) -> None:
    result = results("a")
    with pytest.raises(LaminaError, match="base image"):
        export(store, replace(result, diff_ids=result.diff_ids[1:]))


def test_cancelled_export_sets_no_name(store: Store, results: ResultMaker) -> None:
    cancel = CancelToken()
    cancel.cancel()
    exporter = make_exporter(Output(compression="zstd"))
    with store.lease("test"), pytest.raises(Cancelled):
        exporter.export(
            results("a", "b", names=(APP,)),
            store,
            work=Work(emit=silent, cancel=cancel, clock=time.time),
        ).finalize()
    assert APP not in [image.name for image in read_names(store).all]


def test_work_is_told_as_progress(store: Store, results: ResultMaker) -> None:
    events: list[Event] = []
    exporter = make_exporter(Output(compression="zstd"))
    with store.lease("test"):
        exporter.export(
            results("a", "b"),
            store,
            work=Work(emit=events.append, cancel=CancelToken(), clock=lambda: 7.0),
        ).finalize()
    done = [event for event in events if isinstance(event, Progress) and event.done]
    assert len(done) == 2
    assert all(event.at == 7.0 and event.current > 0 for event in done)


def test_archives_to_a_file_appear_whole(
    store: Store, results: ResultMaker, tmp_path: Path
) -> None:
    for type in ("oci", "docker"):
        dest = tmp_path / f"{type}.tar"
        exported = export(store, results("a", names=(APP,)), Output(type, str(dest)))
        assert exported.names == (APP,)
        with tarfile.open(dest) as tar:
            assert "index.json" in tar.getnames()
        assert not list(tmp_path.glob("*partial"))
    assert APP not in [image.name for image in read_names(store).all]


def test_archive_that_cannot_be_written_leaves_nothing(
    store: Store, results: ResultMaker, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        export(store, results("a"), Output("oci", str(tmp_path / "no" / "x.tar")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_layout_directory(store: Store, results: ResultMaker, tmp_path: Path) -> None:
    export(store, results("a", names=(APP,)), Output("oci", str(tmp_path / "layout"), tar=False))
    assert (tmp_path / "layout" / "oci-layout").exists()


def test_rebuild_of_nothing_imports_nothing_heavy() -> None:
    code = (
        "import sys, lamina.exporter, lamina.exporter.stored\n"
        "heavy = {'tarfile', 'subprocess', 'ctypes', 'contextlib', 'dataclasses', 'isal',\n"
        "         'tempfile', 'lamina.layer.create', 'lamina.layer.tarwrite', 'csv'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    path = next(entry for entry in sys.path if entry.endswith("src"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
