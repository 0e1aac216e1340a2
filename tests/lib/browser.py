# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chromium without a window, by chromedriver and the protocol of WebDriver (W3C)."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lib.tools import require

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
"""Root has no sandbox, and the browser is to talk to no network of its own accord."""

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of a reference to an element, "Elements", WebDriver."""


class Browser:
    """A browser with one page."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path, fragment: str = "") -> None:
        self.command("url", url=f"{page.absolute().as_uri()}{fragment}")

    def command(self, name: str, **arguments: Any) -> Any:
        return _post(f"{self._session}/{name}", arguments)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; the page's own policy does not hold for that."""
        return self.command("execute/sync", script=f"return {expression}", args=[])

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, as WebDriver has them."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def find(self, selector: str) -> list[str]:
        found = self.command("elements", using="css selector", value=selector)
        return [element[_ELEMENT] for element in found]

    def devtools(self, method: str, **parameters: Any) -> Any:
        """Send a command of the Chrome DevTools Protocol."""
        return self.command("goog/cdp/execute", cmd=method, params=parameters)

    def emulate(self, **features: str) -> None:
        """Set media features, as ``prefers_color_scheme="dark"``."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=named)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self) -> bytes:
        """Return what is seen of the page, as PNG."""
        return base64.b64decode(self.devtools("Page.captureScreenshot", format="png")["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.command("print", background=False))

    def messages(self) -> list[str]:
        """Return what the console has got, also from the network and the policy, since the last call."""
        return [entry["message"] for entry in self.command("se/log", type="browser")]


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Start a browser whose profile is in *directory*."""
    require("chromium", "chromedriver")
    command = ["chromedriver", "--port=0", f"--log-path={directory / 'chromedriver.log'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(
                found[1]
                for line in driver.stdout
                if (found := re.search(r"started successfully on port (\d+)", line))
            )
            options = [*OPTIONS, f"--user-data-dir={directory / 'profile'}"]
            capabilities = {"goog:chromeOptions": {"args": options}, "goog:loggingPrefs": {"browser": "ALL"}}
            url = f"http://127.0.0.1:{port}/session"
            session = _post(url, {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
            try:
                yield Browser(f"{url}/{session}")
            finally:
                _send(urllib.request.Request(f"{url}/{session}", method="DELETE"))
        finally:
            driver.terminate()


def _post(url: str, body: dict[str, Any]) -> Any:
    return _send(urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))


def _send(request: urllib.request.Request) -> Any:
    # Not by a proxy that the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)["value"]
