# SPDX-License-Identifier: Apache-2.0
"""What lowering asks of the network: which bytes a URL has, which commit a ref is.

Lowering is pure, so it asks (`UrlRequest`, `GitRequest`) and is called again with the answers, as
for images. With `--checksum` of a URL, or a commit as ref, nothing needs to be asked.
"""

from __future__ import annotations

from lamina.errors import SourceError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.dockerfile.lowered import Lowered
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.spec.span import Span

    Answers = Mapping[tuple[str, str], "Answer"]


LAYOUT = "oci-layout://"  # of an ImageRequest's reference: an image layout on this host


class UrlRequest(Record):
    """The content behind a URL is needed."""

    url: str
    span: Span

    @property
    def key(self) -> tuple[str, str]:
        """The key of the answer."""
        return ("url", self.url)


class GitRequest(Record):
    """The commit that `ref` (empty: the default branch) of the repository is now."""

    remote: str
    ref: str
    span: Span

    @property
    def key(self) -> tuple[str, str]:
        """The key of the answer."""
        return ("git", f"{self.remote}#{self.ref}")


class UrlAnswer(Record):
    """What the URL has now; `mtime` is Last-Modified in POSIX seconds, 0 if there is none."""

    digest: Digest
    mtime: int


class GitAnswer(Record):
    """The full hash of the commit, and the full name of the ref (`refs/heads/main`)."""

    commit: str
    ref: str


RemoteRequest = UrlRequest | GitRequest
Answer = UrlAnswer | GitAnswer


class Remotes:
    """The answers that are known, and the requests that were made without one."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.missing: dict[tuple[str, str], RemoteRequest] = {}

    def ask(self, request: RemoteRequest) -> Answer | None:
        """The answer; None (and the request is remembered) if it is not known."""
        found = self._answers.get(request.key)
        if found is None:
            self.missing.setdefault(request.key, request)
        return found


class NamedContext(Record):
    """What `--build-context NAME=...` puts behind a name of the Dockerfile.

    `image` is what is asked for as an `ImageRequest` (`scratch`: nothing; empty: it is a tree, the
    LocalSource of this name, with `ignore` patterns). `results` are those of another target of a
    bake, one a platform: its files and config stand behind the name, as an image's would.
    """

    name: str
    image: str = ""
    ignore: tuple[str, ...] = ()
    tree: str = ""  # the LocalSource's name, if it is another
    results: tuple[tuple[Platform, Lowered], ...] = ()

    def result(self, platform: Platform, span: Span) -> Lowered:
        """The target's result for `platform`. Raises SourceError if it was not built for it."""
        for built, lowered in self.results:
            if built == platform:
                return lowered
        built_for = ", ".join(str(each) for each, _ in self.results)
        raise SourceError(
            f"context {self.name} is a target that is built for {built_for}, not for {platform}",
            span=span,
            hint="give both targets the same platforms",
        )
