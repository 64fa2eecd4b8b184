# SPDX-License-Identifier: Apache-2.0
"""Pull and push of a 10-layer 500 MB image: lamina beside buildah and skopeo, in one run.

    python bench/client.py [--runs 3] [--server docker-registry|lamina] [--layers 10] [--megabytes 50]

Needs docker-registry (or lamina's own server), buildah and skopeo. Everything is on tmpfs
(BENCH_DIR chooses another place). Each push goes to an empty registry, each pull into an empty
store: buildah's is an unpacked one, skopeo's an image layout (nothing unpacked), lamina's both ways.
Prints medians of wall and CPU seconds, peak resident MiB of the largest process, and ratios.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from registry import DockerRegistry

from lamina.testing.registry import RegistryServer

HERE = Path(__file__).parent
LAMINA = [sys.executable, "-m", "lamina.cli.main"]
FILE = 100_000  # bytes of each file in a layer; an eighth of it compresses


def make_layout(place: Path, layers: int, megabytes: int) -> None:
    """An image layout with the image `v1`: random files, the same ones in every run."""
    source = random.Random(1)  # bytes that do not compress, not secrets
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, media_type: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    descriptors, diff_ids = [], []
    for layer in range(layers):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for number in range(megabytes * 1_000_000 // FILE):
                info = tarfile.TarInfo(f"data/layer-{layer}/{number % 20}/file-{number}")
                info.size = FILE
                tar.addfile(
                    info, io.BytesIO(source.randbytes(FILE * 7 // 8) + b"text " * (FILE // 40))
                )
        data = buffer.getvalue()
        diff_ids.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        packed = gzip.compress(data, 1, mtime=0)
        descriptors.append(add(packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "os": "linux",
        "architecture": machine,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    root = add(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    root["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


class Bench:
    """One place with a layout, a registry, and the stores of each tool."""

    def __init__(self, place: Path, server: str) -> None:
        self.place = place
        self.server = server
        self.env = dict(os.environ)
        self.env["PYTHONPATH"] = str(HERE.parent / "src")
        self.env["LAMINA_ROOT"] = str(place / "lamina")
        self.registry: DockerRegistry | RegistryServer | None = None

    def start(self) -> None:
        """An empty registry."""
        self.stop()
        home = Path(tempfile.mkdtemp(dir=self.place, prefix="registry-")) / "data"
        home.mkdir()
        self.registry = (
            DockerRegistry(home)
            if self.server == "docker-registry"
            else RegistryServer(home).start()
        )

    def stop(self) -> None:
        if self.registry is not None:
            self.registry.stop()
            self.registry = None
        for home in self.place.glob("registry-*"):
            shutil.rmtree(home)

    def name(self, name: str) -> str:
        assert self.registry is not None
        return f"127.0.0.1:{self.registry.port}/bench/{name}:v1"

    def buildah(self, store: str, *words: str) -> list[str]:
        root = ["--root", f"{self.place}/{store}", "--runroot", f"{self.place}/{store}-run"]
        return ["buildah", *root, "--storage-driver", "overlay", *words]

    def run(self, argv: list[str], env: dict[str, str] | None = None) -> dict[str, float]:
        """Wall and CPU seconds and peak MiB, children included."""
        begin = time.monotonic()
        process = subprocess.Popen(
            argv, env=self.env | (env or {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"bench: {' '.join(argv)} failed:\n{errors.decode()}")
        return {
            "wall": wall,
            "cpu": usage.ru_utime + usage.ru_stime,
            "mib": usage.ru_maxrss / 1024,
        }

    def drop(self, *stores: str) -> None:
        for store in stores:
            shutil.rmtree(self.place / store, ignore_errors=True)
            shutil.rmtree(self.place / f"{store}-run", ignore_errors=True)

    # --- what is measured ---

    def pulls(self) -> dict[str, dict[str, float]]:
        """Each tool pulls into an empty store, from a registry that has the image."""
        image = self.name("image")
        found = {}
        store = {"LAMINA_ROOT": f"{self.place}/pulled"}
        for name, flags in (("lamina", []), ("lamina, packed", ["--no-unpack"])):
            found[name] = self.run([*LAMINA, "pull", "-q", *flags, image], store)
            self.drop("pulled")
        found["buildah"] = self.run(
            self.buildah("pulled", "pull", "-q", "--tls-verify=false", image)
        )
        self.drop("pulled")
        found["skopeo"] = self.run(
            ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}",
             f"oci:{self.place}/pulled:v1"]
        )  # fmt: skip
        self.drop("pulled")
        return found

    def pushes(self) -> dict[str, dict[str, float]]:
        """Each tool pushes what it has, to a registry that is empty."""
        found = {}
        self.start()
        self.run([*LAMINA, "tag", "bench", self.name("image")])
        found["lamina"] = self.run([*LAMINA, "push", "-q", self.name("image")])
        self.run([*LAMINA, "rmi", self.name("image")])
        self.start()
        found["buildah"] = self.run(
            self.buildah(
                "buildah",
                "push",
                "-q",
                "--tls-verify=false",
                "bench",
                f"docker://{self.name('image')}",
            )
        )
        self.start()
        found["skopeo"] = self.run(
            ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{self.place}/layout:v1",
             f"docker://{self.name('image')}"]
        )  # fmt: skip
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--server", choices=["docker-registry", "lamina"], default="docker-registry"
    )
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=50, help="of a layer")
    args = parser.parse_args()
    parent = os.environ.get("BENCH_DIR", "/dev/shm")
    place = Path(tempfile.mkdtemp(dir=parent, prefix="bench-client-"))
    bench = Bench(place, args.server)
    rows: dict[str, dict[str, list[dict[str, float]]]] = {"pull": {}, "push": {}}
    try:
        # in a process of its own: children would count this one's memory as theirs
        maker = multiprocessing.Process(
            target=make_layout, args=(place / "layout", args.layers, args.megabytes)
        )
        maker.start()
        maker.join()
        bench.run([*LAMINA, "copy", "-q", f"oci:{place}/layout:v1", "store:bench"])
        bench.run(bench.buildah("buildah", "pull", "-q", f"oci:{place}/layout:v1"))
        listed = subprocess.run(
            bench.buildah("buildah", "images", "-q"), capture_output=True, text=True, check=True
        )
        bench.run(bench.buildah("buildah", "tag", listed.stdout.split()[0], "bench"))
        for _ in range(args.runs):
            for kind, measure in (("push", bench.pushes), ("pull", bench.pulls)):
                for tool, one in measure().items():
                    rows[kind].setdefault(tool, []).append(one)
    finally:
        bench.stop()
        shutil.rmtree(place, ignore_errors=True)
    print(f"{args.server}, {args.layers} layers of {args.megabytes} MB, {args.runs} runs, medians")
    print(f"{'':22}{'wall s':>8}{'cpu s':>8}{'MiB':>7}{'wall/buildah':>14}{'wall/skopeo':>13}")
    for kind, tools in rows.items():
        middle = {
            tool: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for tool, runs in tools.items()
        }
        for tool, one in middle.items():
            ratios = [one["wall"] / middle[peer]["wall"] for peer in ("buildah", "skopeo")]
            print(
                f"{kind + ' ' + tool:22}{one['wall']:8.2f}{one['cpu']:8.2f}{one['mib']:7.0f}"
                f"{ratios[0]:14.2f}{ratios[1]:13.2f}"
            )


if __name__ == "__main__":
    main()
