# SPDX-License-Identifier: Apache-2.0
"""Write docs/images/registry-*.png: the web page of a registry with a few images in it.

    PYTHONPATH=src python scripts/screenshots.py [DIRECTORY]

Needs Debian's chromium and chromium-driver, and selenium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lamina.testing.browser import chromium
from lamina.testing.registry import RegistryServer
from lamina.testing.registry_sample import push_sample

PAGES = {
    "list": ("/", (1000, 640)),
    "repository": ("/repositories/team/payments/api", (1000, 560)),
    "image": ("/images/team/payments/api:2.4.1", (1000, 1120)),
    "narrow": ("/repositories/team/payments/api", (390, 700)),
}


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        RegistryServer(Path(place) / "registry") as server,
    ):
        push_sample(server.client())
        for name, (path, size) in PAGES.items():
            with chromium(size=size) as driver:
                # a headless window is never narrower than 500 pixels; the page can be
                driver.execute_cdp_cmd(
                    "Emulation.setDeviceMetricsOverride",
                    {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
                )
                driver.get(f"http://{server.host}{path}")
                target = directory / f"registry-{name}.png"
                driver.save_screenshot(str(target))
                print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else root / "docs" / "images")
