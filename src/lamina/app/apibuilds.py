# SPDX-License-Identifier: Apache-2.0
"""`lamina.builds`: the recorded builds of a store as Python programs look at them."""

from __future__ import annotations

import builtins

from lamina.app.apistore import open_store
from lamina.app.builds import Build, find_build, list_builds, remove_build
from lamina.image.notebook import table
from lamina.image.times import format_time

__all__ = ["BuildList", "Builds", "builds_api"]


class BuildList(builtins.list[Build]):
    """Recorded builds, newest first; a notebook shows a table."""

    def _repr_html_(self) -> str:
        return table(
            ("Build", "Name", "Status", "Created"),
            [
                (build.id[:12], build.name, build.status, format_time(int(build.created)))
                for build in self
            ],
        )


class Builds:
    """The recorded builds of a store, which is the user's unless a `root` is given."""

    def __repr__(self) -> str:
        return "<lamina.builds: list, get, remove>"

    def list(self, *, root: str = "") -> BuildList:
        """Every recorded build, newest first."""
        return BuildList(list_builds(open_store(root)))

    def get(self, build: str = "", *, root: str = "") -> Build:
        """The build of this id or beginning of one; empty is the newest, `^1` the one before.

        Raises:
            LaminaError: NOT_FOUND, or INVALID if several ids begin so.
        """
        return find_build(open_store(root), build)

    def remove(self, build: str, *, root: str = "") -> None:
        """Forget a recorded build. Raises as `get`, and CONFLICT while it runs."""
        remove_build(open_store(root), build)


builds_api = Builds()
