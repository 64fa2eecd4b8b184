# SPDX-License-Identifier: Apache-2.0
"""A small project with two stages and builds of it that say what ran and why, for tests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from lamina.image.resolve import find_image
from lamina.spec.document import MAX_DOCUMENT
from lamina.store import open_store
from lamina.testing.command import Lamina

DOCKERFILE = """\
FROM busybox AS builder
ARG VERSION=1
ENV MODE=fast
COPY src /src
RUN cat /src/*.c > /out.txt && echo $VERSION $MODE >> /out.txt
FROM busybox
LABEL a=1 b=2
WORKDIR /app
COPY --from=builder /out.txt /app/out.txt
COPY assets /app/assets
RUN --mount=type=bind,source=scripts,target=/s ls /s > /app/list && cat /s/* >> /app/list
RUN echo done > /tmp/done
CMD ["cat", "/app/out.txt"]
"""
MERGES = "[internal] link"  # names of merges (COPY --link), which are no steps
STEPS = {
    "copy-src": "[builder 2/3]",
    "run-cat": "[builder 3/3]",
    "workdir": "WORKDIR /app",
    "copy-from": "COPY --from=builder",
    "copy-assets": "COPY assets",
    "run-mount": "RUN --mount",
    "run-done": "RUN echo done",
}


class Project:
    """A context, a store, and builds that say what ran and why."""

    def __init__(self, place: Path, *, piped: bool) -> None:
        self.place = place
        self.context = place / "app"
        self.lamina = Lamina(place / "store", place)
        self.piped = piped
        self.builds = 0

    @property
    def dockerfile(self) -> Path:
        return self.context / "Dockerfile"

    def edit(self, old: str, new: str) -> None:
        """Replace text of the Dockerfile."""
        text = self.dockerfile.read_text()
        assert old in text
        self.dockerfile.write_text(text.replace(old, new))

    def build(self, *flags: str, check: bool = True) -> Built:
        """Build the context as it is."""
        self.builds += 1
        dest = self.place / f"image{self.builds}.tar"
        words = ["build", "--progress=json", "-t", f"app{self.builds}", *flags]
        words += ["--load", "-o", f"type=tar,dest={dest}"]
        if self.piped:
            done = self.lamina(*words, "-", stdin=self._archive(), check=check)
        else:
            done = self.lamina(*words, "app", check=check)
        return Built(self, done.stderr, dest, f"app{self.builds}")

    def _archive(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(self.context.rglob("*")):
                tar.add(path, path.relative_to(self.context), recursive=False)
        return buffer.getvalue()


class Built:
    """What a build did. `ran` maps a step's name to its explanation."""

    def __init__(self, project: Project, stderr: str, dest: Path, tag: str) -> None:
        self.project = project
        self.tag = tag
        self._dest = dest
        names: dict[str, str] = {}
        self.ran: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, str] = {}
        self.events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
        why: dict[str, dict[str, Any]] = {}
        for event in self.events:
            if event["event"] == "VertexPlanned":
                names[event["vertex"]] = event["name"]
            elif event["event"] == "VertexExplained":
                why[event["vertex"]] = event
            elif event["event"] == "VertexDone":
                self.outcomes[names[event["vertex"]]] = event["outcome"]
                if event["outcome"] == "ran" and not names[event["vertex"]].startswith(MERGES):
                    self.ran[names[event["vertex"]]] = why[event["vertex"]]

    def why(self, part: str) -> dict[str, Any]:
        """The explanation of the one step whose name has this part."""
        found = [event for name, event in self.ran.items() if part in name]
        assert len(found) == 1, (part, list(self.ran))
        return found[0]

    def content(self) -> dict[str, object]:
        """The image without times: its config, and each file's type, mode, owner and bytes."""
        store = open_store(str(self.project.lamina.root))
        try:
            image = find_image(store, self.tag)
            config = json.loads(store.content.read(image.id, limit=MAX_DOCUMENT))
        finally:
            store.close()
        files: dict[str, object] = {"": config["config"]}
        with tarfile.open(self._dest) as tar:
            for member in tar:
                data = tar.extractfile(member) if member.isreg() else None
                digest = hashlib.sha256(data.read()).hexdigest() if data is not None else ""
                owner = (member.uid, member.gid)
                files[member.name] = (member.type, member.mode, owner, member.linkname, digest)
        return files


def make_context(place: Path) -> None:
    """The project's files."""
    for folder in ("src", "src/sub", "assets", "scripts"):
        (place / folder).mkdir(parents=True)
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / ".dockerignore").write_text("*.log\nREADME.md\n")
    (place / "README.md").write_text("read me\n")
    (place / "debug.log").write_text("log\n")
    (place / "src/main.c").write_text("int main;\n")
    (place / "src/util.c").write_text("int util;\n")
    (place / "src/notes.txt").write_text("notes\n")
    (place / "src/sub/deep.h").write_text("deep\n")
    (place / "src/link").symlink_to("main.c")
    (place / "assets/logo.svg").write_text("<svg/>\n")
    (place / "assets/page.html").write_text("<p>\n")
    (place / "scripts/go.sh").write_text("echo go\n")
    for path in sorted(place.rglob("*")):  # whatever the umask of whoever runs the tests
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
