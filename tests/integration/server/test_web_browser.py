# SPDX-License-Identifier: Apache-2.0
"""The web page in a real Chromium: keyboard, search, copying, hostile images, no scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lamina.testing.browser import chromium
from lamina.testing.registry import RegistryServer
from lamina.testing.registry_sample import config, push_index, push_platform
from lamina.testing.waiting import wait_until

pytestmark = pytest.mark.tool("chromium", "chromedriver")

EVIL = '"><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("browser") / "registry") as server:
        client = server.client()
        for name in ("alpha/one", "alpha/two", "beta"):
            client.push_image(name, "v1", name.encode())
        push_index(client, "team/app", "v1")
        image = config("amd64", labels={EVIL: EVIL, "link": "javascript:window.hacked=1"})
        image["history"][2]["created_by"] = EVIL * 10
        image["config"]["Cmd"] = [EVIL]
        push_platform(client, "team/evil", image, tag="v1", annotations={EVIL: EVIL})
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def wait_for(browser: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(f"return {script}"))


def focused(browser: Any) -> str:
    """The text, or else the id, of what has the focus."""
    return str(
        browser.execute_script(
            "const a = document.activeElement; return a.innerText || a.id || a.tagName"
        )
    )


def test_from_the_list_to_a_layer_with_the_keyboard_alone(
    server: RegistryServer, browser: Any
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(f"http://{server.host}/")
    press(browser, Keys.TAB)
    assert focused(browser) == "Skip to the content"
    press(browser, Keys.ENTER)
    wait_for(browser, "document.activeElement.id === 'main'")
    press(browser, "/")
    assert focused(browser) == "q"
    press(browser, "team/app", Keys.ENTER)
    wait_for(browser, "location.search === '?q=team%2Fapp'")
    for text in ("team/app", "v1"):
        for _ in range(12):
            if focused(browser) == text:
                break
            press(browser, Keys.TAB)
        assert focused(browser) == text
        outline = browser.execute_script("return getComputedStyle(document.activeElement).outline")
        assert "3px" in outline
        press(browser, Keys.ENTER)
        wait_for(browser, f"document.querySelector('h1').innerText.endsWith('{text}')")
    assert browser.current_url.endswith("/images/team/app:v1")


def test_search_narrows_and_clears(server: RegistryServer, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(f"http://{server.host}/")
    browser.find_element(By.ID, "q").send_keys("alpha", Keys.ENTER)
    wait_for(browser, "document.querySelectorAll('tbody tr').length === 2")
    assert browser.find_element(By.ID, "q").get_attribute("value") == "alpha"
    browser.find_element(By.LINK_TEXT, "Clear").click()
    wait_for(browser, "document.querySelectorAll('tbody tr').length === 5")


def test_slash_in_the_search_is_a_slash(server: RegistryServer, browser: Any) -> None:
    browser.get(f"http://{server.host}/")
    press(browser, "/", "a/b")
    assert browser.execute_script("return document.getElementById('q').value") == "a/b"


def test_copy_button_says_that_it_copied(server: RegistryServer, browser: Any) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"http://{server.host}/images/team/app:v1")
    origin = f"http://{server.host}"
    permissions = {"origin": origin, "permissions": ["clipboardReadWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    button = browser.find_element(By.CSS_SELECTOR, ".commands button.copy")
    button.click()
    wait_for(browser, "document.getElementById('said').textContent !== ''")
    assert "Copied" in browser.find_element(By.ID, "said").get_attribute("textContent")
    pasted = browser.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, done)"
    )
    assert pasted == f"lamina pull {server.host}/team/app:v1"


def test_hostile_image_runs_nothing(server: RegistryServer, browser: Any) -> None:
    browser.get_log("browser")
    for path in ("/images/team/evil:v1", "/repositories/team/evil", f"/?q={EVIL}"):
        browser.get(f"http://{server.host}{path}")
        assert browser.execute_script("return window.hacked") is None
        assert browser.execute_script("return document.images.length") == 0
        assert browser.execute_script("return document.scripts.length") == 1
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_policy_stops_a_script_that_got_in(server: RegistryServer, browser: Any) -> None:
    browser.get(f"http://{server.host}/")
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s)"
    )
    assert browser.execute_script("return window.hacked") is None


@pytest.mark.parametrize("path", ["/", "/repositories/team/app", "/images/team/app:v1"])
def test_accessibility_basics(server: RegistryServer, browser: Any, path: str) -> None:
    browser.get(f"http://{server.host}{path}")
    faults = browser.execute_script(
        """
        const faults = [];
        const named = (e) => (e.innerText || e.getAttribute("aria-label") || "").trim() !== "";
        if (!document.documentElement.lang) faults.push("no language");
        if (!document.title) faults.push("no title");
        if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
        if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
        for (const e of document.querySelectorAll("a, button"))
          if (!named(e)) faults.push("no name: " + e.outerHTML);
        for (const e of document.querySelectorAll("input"))
          if (e.labels.length === 0) faults.push("no label: " + e.outerHTML);
        for (const e of document.querySelectorAll("thead th"))
          if (!e.scope || !named(e)) faults.push("no scope or text: " + e.outerHTML);
        for (const e of document.querySelectorAll("[tabindex]"))
          if (e.tabIndex > 0) faults.push("tabindex: " + e.outerHTML);
        let level = 0;
        for (const e of document.querySelectorAll("h1, h2, h3")) {
          if (Number(e.tagName[1]) > level + 1) faults.push("skipped level: " + e.outerHTML);
          level = Number(e.tagName[1]);
        }
        const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
        if (new Set(ids).size !== ids.length) faults.push("ids twice");
        return faults;
        """
    )
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(server: RegistryServer, browser: Any, scheme: str) -> None:
    """WCAG 1.4.3: 4.5 to 1, for each text and the ground below it."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(f"http://{server.host}/images/team/app:v1")
    poor = browser.execute_script(
        """
        const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (e) => {
          for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c;
          }
          return [255, 255, 255];
        };
        const poor = [];
        for (const e of document.querySelectorAll("body *")) {
          if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
          const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < 4.5) poor.push(`${ratio.toFixed(1)} ${e.outerHTML.slice(0, 100)}`);
        }
        return poor;
        """
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert poor == []


@pytest.mark.parametrize("path", ["/", "/repositories/team/app", "/images/team/evil:v1"])
def test_narrow_screen_needs_no_sideways_scrolling(
    server: RegistryServer, browser: Any, path: str
) -> None:
    narrow = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    browser.get(f"http://{server.host}{path}")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 320


def test_without_scripts_everything_but_copying_works(server: RegistryServer) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with chromium(scripts=False) as browser:
        browser.get(f"http://{server.host}/")
        browser.find_element(By.ID, "q").send_keys("team/app", Keys.ENTER)
        wait_until(
            lambda: "?q=" in browser.current_url, "the page that answers"
        )  # the first has links, too
        browser.find_element(By.CSS_SELECTOR, "tbody th a").click()
        browser.find_element(By.LINK_TEXT, "v1").click()
        buttons = browser.find_elements(By.CSS_SELECTOR, "button.copy")
        assert buttons
        assert not any(button.is_displayed() for button in buttons)
        browser.find_element(By.LINK_TEXT, "linux/arm64").click()
        current = browser.find_element(By.CSS_SELECTOR, ".platforms [aria-current]")
        assert current.text == "linux/arm64"
        browser.find_element(By.XPATH, "//summary[text()='Manifest']").click()
        assert "schemaVersion" in browser.find_element(By.CSS_SELECTOR, "details[open] pre").text
