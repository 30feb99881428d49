"""A headless Chromium, driven with Selenium, for the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.e2e.harness import missing, until

REQUIRED_BY = "PRBANDIT_REQUIRE_CHROMIUM"
_BINARIES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # Chromium has none as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
)

CONTRAST = """
const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
function behind(element) {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
    if (a) throw new Error("a background that shows through");
  }
  return [255, 255, 255];
}
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || !element.checkVisibility()) continue;
  if (["OPTION", "NOSCRIPT"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const ink = luminance(parse(element instanceof SVGElement ? style.fill : style.color));
  const paper = luminance(behind(element));
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  found.push([ratio, texts.currentNode.textContent.trim().slice(0, 40)]);
}
return found.sort((a, b) => a[0] - b[0]);
"""
"""Ratio of contrast (WCAG 2.2, 1.4.3) and text of every text that shows, the least first."""


class Browser:
    """One window; ``driver`` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def size(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first element of a selector, "" where there is none."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def rows(self, label: str) -> list[list[str]]:
        """The cells of a table by its label."""
        return list(
            self.run(
                "return [...document.querySelectorAll(`table[aria-label='${arguments[0]}'] tbody tr`)]"
                ".map((row) => [...row.cells].map((cell) => cell.textContent))",
                label,
            )
        )

    def facts(self, selector: str) -> dict[str, str]:
        """The terms of a list of facts and what they say."""
        return dict(
            self.run(
                "return [...document.querySelectorAll(`${arguments[0]} dt`)]"
                ".map((term) => [term.textContent, term.nextElementSibling.textContent])",
                selector,
            )
        )

    def click(self, selector: str) -> None:
        """Clicks as a user does: the element has to be there, enabled and in sight."""
        until(lambda: self._clicked(selector), f"a click on {selector}")

    def _clicked(self, selector: str) -> bool:
        from selenium.common.exceptions import WebDriverException

        try:
            element = self.driver.find_element("css selector", selector)
            if not element.is_enabled():
                return False
            element.click()
            return True
        except WebDriverException:
            return False

    def choose(self, selector: str, value: str) -> None:
        """Chooses from a list."""
        from selenium.webdriver.support.ui import Select

        Select(self.driver.find_element("css selector", selector)).select_by_value(value)

    def press_tab(self) -> dict[str, str]:
        """The next element by the keyboard: its text, whether it shows that it has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).send_keys(Keys.TAB).perform()
        return dict(
            self.run(
                "const at = document.activeElement, style = getComputedStyle(at);"
                "return { tag: at.tagName, text: at.textContent.slice(0, 40), label: at.ariaLabel ?? '',"
                " outline: style.outlineStyle === 'none' ? '' : style.outlineWidth }"
            )
        )

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - window.innerWidth"))

    def contrasts(self) -> list[tuple[float, str]]:
        return [(ratio, text) for ratio, text in self.run(CONTRAST)]

    def complaints(self, but: Sequence[str] = ()) -> list[str]:
        """What the console has said since the last call, without what holds one of ``but``."""
        said = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [text for text in said if not any(part in text for part in but)]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips, naming the tool, where there is none."""
    binary = next(filter(None, map(shutil.which, _BINARIES)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("needs Chromium and its driver (Debian: chromium, chromium-driver)", REQUIRED_BY)
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("needs Selenium (the extra dev)", REQUIRED_BY)
    options = Options()
    options.binary_location = binary
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
