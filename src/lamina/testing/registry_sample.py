# SPDX-License-Identifier: Apache-2.0
"""A registry's worth of plausible images, for the web page's tests and screenshots."""

from __future__ import annotations

import hashlib
import json

from lamina.spec import mediatype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.testing.registry import RegistryClient

_NAMES = (
    "base/debian",
    "base/python",
    "ci/runner",
    "data/etl",
    "data/notebooks",
    "team/payments/api",
    "team/payments/worker",
    "team/search/indexer",
    "team/shop/frontend",
    "tools/linter",
)
_STEPS = (
    ("/bin/sh -c #(nop) ADD file:5f1c in / ", 290_000, False),
    ("ENV PYTHONUNBUFFERED=1", 0, True),
    ("RUN /bin/sh -c apt-get update && apt-get install -y libpq5 # buildkit", 81_000, False),
    ("COPY requirements.txt /srv/ # buildkit", 900, False),
    (
        "RUN /bin/sh -c pip install --require-hashes -r /srv/requirements.txt # buildkit",
        430_000,
        False,
    ),
    ("COPY src /srv/src # buildkit", 22_000, False),
    ('ENTRYPOINT ["python", "-m", "payments"]', 0, True),
)
LABELS = {
    "org.opencontainers.image.source": "https://git.example/team/payments",
    "org.opencontainers.image.title": "Payments API",
}


def descriptor(media_type: str, digest: str, size: int, **fields: Any) -> dict[str, Any]:
    """A descriptor as JSON has it."""
    return {"mediaType": media_type, "digest": digest, "size": size, **fields}


def config(architecture: str, *, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """The config of the sample image."""
    return {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-11-20T09:12:44Z",
        "config": {
            "User": "app",
            "ExposedPorts": {"8000/tcp": {}},
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1"],
            "Entrypoint": ["python", "-m", "payments"],
            "Cmd": ["--listen", "0.0.0.0:8000"],
            "WorkingDir": "/srv",
            "StopSignal": "SIGTERM",
            "Labels": LABELS if labels is None else labels,
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [
            {"created_by": text, **({"empty_layer": True} if empty else {})}
            for text, _, empty in _STEPS
        ],
    }


def push_document(
    client: RegistryClient, repository: str, document: dict[str, Any], *, tag: str = ""
) -> dict[str, Any]:
    """The descriptor of the manifest, pushed by its digest and under the tag."""
    raw = json.dumps(document).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    for reference in (tag, digest) if tag else (digest,):
        answer = client.push_manifest(repository, reference, raw)
        assert answer.status == 201, answer.body
    return descriptor(document["mediaType"], digest, len(raw))


def push_platform(
    client: RegistryClient,
    repository: str,
    image_config: dict[str, Any],
    *,
    tag: str = "",
    **fields: Any,
) -> dict[str, Any]:
    """The descriptor of an image with that config and the sample's layers, pushed."""
    raw = json.dumps(image_config).encode()
    layers = []
    for number, (_, size, empty) in enumerate(_STEPS):
        if not empty:
            data = hashlib.sha256(f"{repository}{number}".encode()).digest() * (size // 32 + 1)
            digest = client.push_blob(repository, data)
            layers.append(descriptor(mediatype.OCI_LAYER_GZIP, digest, len(data)))
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(mediatype.OCI_CONFIG, client.push_blob(repository, raw), len(raw)),
        "layers": layers,
        **fields,
    }
    return push_document(client, repository, document, tag=tag)


def push_index(client: RegistryClient, repository: str, tag: str) -> dict[str, Any]:
    """The descriptor of an index of two platforms with an attestation and a signature, pushed."""
    entries = []
    labels = {**LABELS, "org.opencontainers.image.version": tag}
    for architecture in ("amd64", "arm64"):
        platform = {"os": "linux", "architecture": architecture}
        pushed = push_platform(client, repository, config(architecture, labels=labels))
        entries.append({**pushed, "platform": platform})
    about = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": entries[0]["digest"],
    }
    statement = client.push_blob(repository, b"{}")
    predicate = {"in-toto.io/predicate-type": "https://spdx.dev/Document"}
    attested = push_document(
        client,
        repository,
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": descriptor(mediatype.OCI_CONFIG, statement, 2),
            "layers": [
                descriptor("application/vnd.in-toto+json", statement, 2, annotations=predicate)
            ],
        },
    )
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries.append({**attested, "platform": unknown, "annotations": about})
    index = push_document(
        client,
        repository,
        {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries},
        tag=tag,
    )
    push_document(
        client,
        repository,
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "config": descriptor(mediatype.OCI_EMPTY, statement, 2),
            "layers": [descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", statement, 2)],
            "subject": index,
        },
    )
    return index


def push_sample(client: RegistryClient) -> None:
    """Ten repositories; `team/payments/api` has the most to show."""
    for number, name in enumerate(_NAMES):
        for version in range(1 + number % 4):
            client.push_image(name, f"1.{version}", f"{name}{version}".encode() * 900)
    for tag in ("2.3.9", "2.4.0", "2.4.1", "latest"):
        push_index(client, "team/payments/api", tag)
