# SPDX-License-Identifier: Apache-2.0
"""lamina's registry beside Debian's docker-registry: requests a second, and bytes both ways.

    python bench/registry.py [--seconds 5] [--megabytes 200]

Needs docker-registry, wrk, ab (apache2-utils) and curl. Both run in this run, on tmpfs, one after
the other is asked each thing, without access logs. Prints one line for each measure with the ratio.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from lamina.testing.registry import RegistryClient, RegistryServer, with_query

MIB = 1 << 20


class DockerRegistry:
    def __init__(self, place: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = place / "docker-registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {place}/docker-registry}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n"
        )
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.process.pid
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024


def manifests(port: int, seconds: int) -> float:
    out = subprocess.run(
        [
            "wrk",
            "-t1",
            "-c32",
            f"-d{seconds}",
            "-H",
            "Accept: application/vnd.oci.image.manifest.v1+json",
            f"http://127.0.0.1:{port}/v2/bench/manifests/v1",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Non-2xx" not in out, out
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def heads(port: int, digest: str, seconds: int) -> float:
    out = subprocess.run(
        [
            "ab",
            "-q",
            "-i",
            "-k",
            "-c32",
            f"-t{seconds}",
            "-n1000000",
            f"http://127.0.0.1:{port}/v2/bench/blobs/{digest}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Non-2xx" not in out, out
    return float(re.search(r"Requests per second:\s+([\d.]+)", out)[1])


def get_blob(port: int, digest: str, size: int) -> float:
    """MiB a second of four clients."""
    started = time.perf_counter()
    clients = [
        subprocess.Popen(
            ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}/v2/bench/blobs/{digest}"]
        )
        for _ in range(4)
    ]
    assert all(client.wait() == 0 for client in clients)
    return 4 * size / MIB / (time.perf_counter() - started)


def push_blobs(port: int, size: int, *, clients: int) -> float:
    """MiB a second of new blobs."""
    blobs = [os.urandom(size) for _ in range(clients)]
    names = ["sha256:" + hashlib.sha256(blob).hexdigest() for blob in blobs]

    def push(blob: bytes, name: str) -> None:
        client = RegistryClient(port)
        client.connection = http.client.HTTPConnection("127.0.0.1", port, blocksize=MIB)
        location = client("POST", "/v2/bench/blobs/uploads/").headers["location"]
        headers = {"Content-Type": "application/octet-stream"}
        answer = client("PUT", with_query(location, f"digest={name}"), blob, headers)
        assert answer.status == 201, answer.body
        client.connection.close()

    threads = [threading.Thread(target=push, args=pair) for pair in zip(blobs, names, strict=True)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients * size / MIB / (time.perf_counter() - started)


def missing_programs() -> list[str]:
    """What this needs and is not installed."""
    return [name for name in ("docker-registry", "wrk", "ab", "curl") if not shutil.which(name)]


def measures(seconds: int, megabytes: int) -> dict[str, tuple[float, float]]:
    """What was measured -> (lamina, docker-registry)."""
    size = megabytes * MIB
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    ours = theirs = None
    try:
        ours, theirs = RegistryServer(place / "lamina").start(), DockerRegistry(place)
        servers = (ours, theirs)
        big = os.urandom(size)
        for server in servers:
            client = RegistryClient(server.port)
            _, manifest = client.push_image("bench", "v1", b"layer" * 200)
            large = client.push_blob("bench", big)
        small = manifest["layers"][0]["digest"]
        del big
        asked = {
            "manifest GET, 32 connections (1/s)": lambda s: manifests(s.port, seconds),
            "blob HEAD, 32 connections (1/s)": lambda s: heads(s.port, small, seconds),
            f"blob GET of {megabytes} MiB, 4 clients (MiB/s)": lambda s: get_blob(
                s.port, large, size
            ),
            f"push of {megabytes} MiB, 1 client (MiB/s)": lambda s: push_blobs(
                s.port, size, clients=1
            ),
            f"push of 4 x {megabytes // 4} MiB, 4 clients (MiB/s)": lambda s: push_blobs(
                s.port, size // 4, clients=4
            ),
        }
        found = {}
        for name, measure in asked.items():
            best = [max(measure(server) for _ in range(2)) for server in servers]
            found[name] = (best[0], best[1])
        found["peak resident memory (MiB)"] = (peak_mib(ours.pid), peak_mib(theirs.pid))
        found["processor seconds in all"] = (cpu_seconds(ours.pid), cpu_seconds(theirs.pid))
        return found
    finally:
        for server in (ours, theirs):
            if server:
                server.stop()
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=200)
    args = parser.parse_args()
    if missing := missing_programs():
        sys.exit(f"bench: not installed: {', '.join(missing)}")
    print(f"{'':44}{'lamina':>10}{'docker-registry':>18}{'ratio':>8}")
    for name, (ours, theirs) in measures(args.seconds, args.megabytes).items():
        print(f"{name:44}{ours:10.1f}{theirs:18.1f}{ours / theirs:8.1f}")


if __name__ == "__main__":
    main()
