# SPDX-License-Identifier: Apache-2.0
"""A real headless Chromium, driven through Debian's chromedriver, with an empty profile."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium's sandbox does not start as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium(*, scripts: bool = True, size: tuple[int, int] = (1100, 900)) -> Iterator[Chrome]:
    """A browser that ends with the block. `size` is the window's, in CSS pixels."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in _FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        managed = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", managed)
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        log = str(Path(profile) / "chromedriver.log")
        driver = Chrome(options, Service("/usr/bin/chromedriver", log_output=log))
        try:
            yield driver
        finally:
            driver.quit()
