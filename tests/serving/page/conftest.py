"""Chromium, started once and controlled through its debugging pipe, and pages in it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Chromium reads commands from descriptor 3 and writes results and events to 4, each terminated by a NUL.
LAUNCH = (
    "import fcntl, os, sys; ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]; "
    "os.dup2(ends[0], 3); os.dup2(ends[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """A Chromium process, controlled by the DevTools protocol."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable, "-IS", "-c", LAUNCH, str(theirs_in), str(theirs_out), BROWSER, "--headless",
                "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
                "--disable-background-networking", "--disable-component-update", "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream", f"--user-data-dir={folder}",
            ],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __call__(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._in], [], [], 60)[0], "Chromium does not answer"
            received = os.read(self._in, 1 << 20)
            assert received, "Chromium ended"
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        self("Browser.close")
        self._process.wait(60)
        os.close(self._in)
        os.close(self._out)


class Page:
    """A page with its own session storage and a width in pixels."""

    def __init__(self, browser: Browser, url: str, width: int) -> None:
        self._browser = browser
        self.url = url
        self._context = browser("Target.createBrowserContext")["browserContextId"]
        target = browser("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = browser("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser(method, self._session, **params)

    def run(self, code: str) -> Any:
        """Runs JavaScript and returns its value; waits for a promise."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, code: str) -> Any:
        """Waits until a JavaScript expression is truthy and returns its value."""
        value = self.run(
            "new Promise((resolve) => { const start = Date.now(); const look = () => { let value; try { value = "
            f"({code}); }} catch {{}} if (value || Date.now() - start > 3e4) resolve(value); "
            "else setTimeout(look, 5); }; look(); })"
        )
        assert value, f"{code} did not become true:\n{self.run('document.body.innerText')}"
        return value

    def choose(self, *files: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(each) for each in files])

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of this page with this method name."""
        self.run("0")  # earlier events are received before its result
        return [
            each["params"]
            for each in self._browser.events
            if each.get("sessionId") == self._session and each["method"] == method
        ]

    def close(self) -> None:
        self._browser("Target.disposeBrowserContext", browserContextId=self._context)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    running = Browser(tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages; checks at the end that they logged no error, requested no other server and do not overflow."""
    pages: list[Page] = []

    def open_it(url: str, width: int = 1280) -> Page:
        pages.append(Page(browser, url, width))
        return pages[-1]

    yield open_it
    for page in pages:
        assert not page.events("Runtime.exceptionThrown")
        assert not page.events("Runtime.consoleAPICalled")
        # Failed requests, which Chromium logs too, may be the subject of a test.
        assert not [each for each in page.events("Log.entryAdded") if each["entry"]["source"] != "network"]
        requested = {each["request"]["url"] for each in page.events("Network.requestWillBeSent")}
        assert not [url for url in requested if not url.startswith((page.url, "blob:", "data:"))]
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.close()
