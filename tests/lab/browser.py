"""A headless Chromium for tests of pages that live from scripts."""

from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from lab.programs import find_program

_FLAGS = (
    "--headless",
    "--no-sandbox",  # root, as in a container, may not use it
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WAIT_S = 20.0


class Browser:
    """To be closed. `profile` is a new directory for its files; `size` in pixels: a list has only the rows one sees."""

    def __init__(self, profile: Path, *, size: tuple[int, int] = (1200, 2000)) -> None:
        options = ChromeOptions()
        options.binary_location = find_program("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        self._driver = Chrome(options=options, service=Service(find_program("chromedriver")))

    def close(self) -> None:
        """End the browser."""
        self._driver.quit()

    def open(self, url: str) -> None:
        """Open a page."""
        self._driver.get(url)

    @property
    def source(self) -> str:
        """The page as it stands."""
        return self._driver.page_source

    def texts(self, selector: str) -> list[str]:
        """Return the visible text of every element of a CSS selector."""
        return [element.text for element in self._driver.find_elements(By.CSS_SELECTOR, selector)]

    def wait_for_text(self, selector: str, text: str) -> str:
        """Wait until an element of the selector has `text` in it, and return all that it says."""

        def found(_: Chrome) -> str:
            return next((each for each in self.texts(selector) if text in each), "")

        return WebDriverWait(self._driver, _WAIT_S).until(found, f"no {selector} with {text!r}: {self.texts('body')}")

    def wait_for(self, selector: str) -> WebElement:
        """Wait until there is an element of the selector: a page that was just opened or sent may not be there yet."""
        return WebDriverWait(self._driver, _WAIT_S).until(
            lambda driver: driver.find_element(By.CSS_SELECTOR, selector), f"no {selector}"
        )

    def fill_in(self, selector: str, text: str) -> None:
        """Type into a field, send its form and wait until the page that had it is gone."""
        field = self.wait_for(selector)
        field.send_keys(text)
        field.submit()
        WebDriverWait(self._driver, _WAIT_S).until(staleness_of(field), "the form was not sent")

    def enter(self, selector: str, text: str) -> None:
        """Type into a field and press Enter; the page stays."""
        self.wait_for(selector).send_keys(text, Keys.ENTER)

    def click_text(self, selector: str, text: str) -> None:
        """Click the first element of the selector that has `text` in it."""
        self.wait_for_text(selector, text)
        elements = self._driver.find_elements(By.CSS_SELECTOR, selector)
        next(each for each in elements if text in each.text).click()

    def run(self, script: str) -> Any:
        """Run a script in the page and return what it returns."""
        return self._driver.execute_script(script)

    def press(self, *keys: str, holding: str | None = None) -> None:
        """Press keys, one after the other, wherever the focus is; `holding` is held down meanwhile."""
        actions = ActionChains(self._driver)
        if holding is not None:
            actions = actions.key_down(holding)
        actions = actions.send_keys(*keys)
        (actions if holding is None else actions.key_up(holding)).perform()

    def show_as(self, *, width: int = 1200, height: int = 2000, dark: bool = False) -> None:
        """Be a screen of this size in CSS pixels, smaller than a window can be, whose owner likes it dark or light."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def complaints(self) -> list[str]:
        """Return what the page's scripts and the browser's rules complained about since the last look."""
        log = self._driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def save_screenshot(self, file: Path) -> None:
        """Save what is seen as a PNG."""
        self._driver.save_screenshot(str(file))
