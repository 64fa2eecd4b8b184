# SPDX-License-Identifier: Apache-2.0
"""Soak the registry server: many clients beside the collector, then kills. Exit status 1 if anything
that was acknowledged is gone, or a client saw a 5xx.

    PYTHONPATH=src nice -n 19 python bench/soak.py --seconds 300 --clients 64 --kills 50
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from lamina.testing.registry import RegistryServer
from lamina.testing.registry_soak import Report, interrupt, soak

GRACE = 20.0  # seconds; longer than a push takes here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--directory", default=None, help="where the registries are made")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        if arguments.seconds:
            config = f'[gc]\ninterval = "1s"\ngrace = "{GRACE}s"\nuntagged-after = "2s"\n'
            config += "[history]\nwindow = 0\n"
            with RegistryServer(Path(place) / "soak", config=config) as server:
                begun = time.monotonic()
                report = soak(
                    server, clients=arguments.clients, seconds=arguments.seconds, grace=GRACE
                )
                what = f"{arguments.clients} clients, {time.monotonic() - begun:.0f} s"
                failed += show(what, report)
                print(collected(server))
        if arguments.kills:
            with RegistryServer(Path(place) / "kills") as server:
                report = interrupt(server, kills=arguments.kills)
                failed += show(f"{arguments.kills} kills", report)
    return 1 if failed else 0


def show(what: str, report: Report) -> int:
    """Print the report; the number of failures."""
    print(
        f"{what}: {report.pushed} images pushed, {report.pulled} pulled whole,"
        f" {report.resumed} uploads resumed, {len(report.failures)} failures"
    )
    for failure in report.failures[:20]:
        print(f"  {failure}")
    return len(report.failures)


def collected(server: RegistryServer) -> str:
    """What the collector did, and the server's memory."""
    text = server.client()("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("lamina_registry_collected")]
    status = Path(f"/proc/{server.pid}/status").read_text()
    lines += [line for line in status.splitlines() if line.startswith("VmHWM")]
    return "\n".join(f"  {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
