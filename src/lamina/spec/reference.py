# SPDX-License-Identifier: Apache-2.0
"""Image references and Docker's normalisation of them.

Source: the grammar in distribution/reference (`reference.go`, `normalize.go`): the first path
component is a registry if it contains a dot or a colon, is `localhost`, or has an upper-case
letter; otherwise the registry is docker.io, and a single-component name lives under `library/`.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import HEX_LENGTH, Digest
from lamina.start.pattern import ASCII, pattern
from lamina.start.record import Record, replace

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"
MAX_REPOSITORY = 255  # of registry/repository together, as distribution counts since v3

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = pattern(rf"{_COMPONENT}(?:/{_COMPONENT})*", ASCII)
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = pattern(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", ASCII)
_TAG = pattern(r"[\w][\w.-]{0,127}", ASCII)
_HEX64 = pattern(r"[a-f0-9]{64}", ASCII)


class InvalidReference(LaminaError):
    kind = Kind.INVALID


class Reference(Record):
    """`registry/repository[:tag][@digest]`; `tag` is empty if none was given."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @staticmethod
    def parse(text: str) -> Reference:
        """The reference as Docker reads it; `ubuntu` has no tag (see `with_default_tag`).

        Raises:
            InvalidReference: bad characters, upper case in the repository, too long, or 64 hex
                digits alone (an image id, not a name).
            InvalidDigest: the part after `@` is not a digest.
        """
        if _HEX64.fullmatch(text):
            raise InvalidReference(
                f"invalid reference {text!r}: cannot be 64 hexadecimal characters (an image id)"
            )
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        name, tag = _split_tag(name)
        registry, repository = _split_registry(name)
        if tag is not None and not _TAG.fullmatch(tag):
            raise InvalidReference(f"invalid reference {text!r}: invalid tag {tag!r}")
        if not _PATH.fullmatch(repository):
            if _PATH.fullmatch(repository.lower()):
                raise InvalidReference(
                    f"invalid reference {text!r}: repository name must be lowercase"
                )
            raise InvalidReference(f"invalid reference {text!r}")
        if not _REGISTRY.fullmatch(registry):
            raise InvalidReference(f"invalid reference {text!r}: invalid registry {registry!r}")
        if len(registry) + 1 + len(repository) > MAX_REPOSITORY:
            raise InvalidReference(
                f"invalid reference: repository name must not be longer than {MAX_REPOSITORY}"
            )
        return Reference(registry, repository, tag or "", digest)

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"

    def familiar(self) -> str:
        """The reference as Docker prints it: `ubuntu:latest`, not `docker.io/library/...`."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.familiar_name()}{tag}{digest}"

    def familiar_name(self) -> str:
        """The repository as Docker prints it."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        for short in (self.repository.removeprefix(_OFFICIAL), self.repository):
            # `library/a/b` keeps its prefix, and `0.0/a` or 64 digits are written in full: the
            # short form would mean another repository, a registry, or an image id
            known = _split_registry(short) == (self.registry, self.repository)
            if known and not _HEX64.fullmatch(short):
                return short
        return self.name

    def with_default_tag(self) -> Reference:
        """This reference, with `latest` if it has neither tag nor digest."""
        if self.tag or self.digest is not None:
            return self
        return replace(self, tag=DEFAULT_TAG)


def _split_tag(name: str) -> tuple[str, str | None]:
    """A colon after the last slash starts the tag (before it, a port)."""
    slash = name.rfind("/")
    colon = name.rfind(":")
    if colon > slash:
        return name[:colon], name[colon + 1 :]
    return name, None


def _split_registry(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    is_registry = slash and (
        "." in head or ":" in head or head == "localhost" or head.lower() != head
    )
    registry, repository = (head, rest) if is_registry else (DEFAULT_REGISTRY, name)
    if registry == _LEGACY_REGISTRY:
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository


def is_image_id(text: str) -> bool:
    """Whether the text can be a (shortened) image id: hex digits, with or without `sha256:`."""
    digits = text.removeprefix("sha256:")
    return 1 <= len(digits) <= HEX_LENGTH["sha256"] and all(
        char in "0123456789abcdef" for char in digits
    )


def is_dangling(name: str) -> bool:
    """Whether a stored name only keeps an unnamed image, by its digest: a reference holds a slash."""
    return "/" not in name
