# SPDX-License-Identifier: Apache-2.0
"""`lamina.images` and `lamina.builds`: what a program does with images, and what a notebook shows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import lamina
from lamina import Kind, LaminaError

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def app(root: str, tmp_path: Path) -> lamina.Image:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f'FROM busybox\nLABEL evil="{HOSTILE}"\nRUN echo "{HOSTILE}" > /file\nCMD ["cat", "/file"]\n'
    )
    return lamina.build(context, tags=["app:1", "app:2"])


def test_images_are_listed_once_and_found(app: lamina.Image) -> None:
    assert app.tags == ("app:1", "app:2")
    assert repr(app) == f"<Image {app.id.hex[:12]} app:1 app:2 {app.config().platform}>"
    assert [image.id for image in lamina.images.list("app")] == [app.id]
    assert len(lamina.images.list()) == 2
    for name in ("app:2", str(app.id), app.id.hex[:12]):
        assert lamina.images.get(name).id == app.id
    with pytest.raises(LaminaError) as caught:
        lamina.images.get("nosuch")
    assert caught.value.kind is Kind.NOT_FOUND


def test_names_come_and_go(app: lamina.Image) -> None:
    lamina.images.tag(app, "other")
    assert app.tags == ("app:1", "app:2", "other:latest")
    assert lamina.images.remove("other") == ["Untagged: other:latest"]
    with pytest.raises(LaminaError) as caught:
        lamina.images.remove(app)
    assert caught.value.kind is Kind.CONFLICT
    lamina.images.remove(app, force=True)
    with pytest.raises(LaminaError):
        lamina.images.get("app:1")


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_archives_take_the_names_along(app: lamina.Image, tmp_path: Path, format: str) -> None:
    path = tmp_path / "app.tar"
    lamina.images.save(app, path, format=format)
    buffer = io.BytesIO()
    lamina.images.save("app:1", buffer, format=format)
    lamina.images.remove(app, force=True)
    [loaded] = lamina.images.load(path)
    assert loaded.id == app.id
    assert loaded.tags == ("app:1", "app:2")
    lamina.images.remove(app, force=True)
    [again] = lamina.images.load(buffer.getvalue())
    assert again.tags == ("app:1",)
    buffer.seek(0)
    assert lamina.images.load(buffer)[0].id == app.id
    assert lamina.containers.run(again) == HOSTILE.encode() + b"\n"


def test_bad_archives_are_errors(root: str, tmp_path: Path) -> None:
    with pytest.raises(LaminaError) as caught:
        lamina.images.load(b"no archive")
    assert caught.value.kind is Kind.INVALID
    with pytest.raises(LaminaError, match="unknown archive format"):
        lamina.images.save("busybox", tmp_path / "x", format="zip")
    assert not (tmp_path / "x").exists()


def test_notebooks_show_no_markup_of_the_images(app: lamina.Image) -> None:
    history = lamina.images.history(app)
    assert HOSTILE in history[1].entry.created_by
    builds = lamina.builds.list()
    pages = [app._repr_html_(), history._repr_html_(), builds._repr_html_()]
    pages.append(builds[0]._repr_html_())
    for page in pages:
        assert page.startswith("<table>")
        assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in pages[0]
    assert "&lt;img" in pages[1]
    assert "&lt;img" in pages[3]


def test_builds_are_found_and_forgotten(app: lamina.Image) -> None:
    [build] = lamina.builds.list()
    assert lamina.builds.get().id == build.id
    assert repr(build) == f"<Build {build.id[:12]} {build.name} completed>"
    lamina.builds.remove(build.id)
    assert lamina.builds.list() == []


def test_attrs_are_dockers(app: lamina.Image) -> None:
    attrs = lamina.images.attrs(app)
    assert attrs["Id"] == str(app.id)
    assert attrs["RepoTags"] == ["app:1", "app:2"]
