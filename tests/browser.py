"""A headless Chromium for tests, driven through a pair of pipes in the DevTools protocol: no port, no other package.

    with Browser() as browser:
        page = browser.open("file:///tmp/report.html")
        page.click("button")
        assert page.run("document.title") == "..."
        assert page.complaints == []

A test module that needs it says `pytestmark = needs_browser`. Debian's package is `chromium`; `INSIGHTV_BROWSER` names
another program.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
PROGRAM = os.environ.get("INSIGHTV_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
needs_browser = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium found; apt-get install chromium, or set INSIGHTV_BROWSER"
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "about:blank",
)
_KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class Browser:
    """One Chromium process with a profile of its own; both are gone when the block ends."""

    def __init__(self, timeout_s: float = 60) -> None:
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._pages: dict[str, Page] = {}
        self._replies: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="insightv-browser-")
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()

        def place() -> None:  # Chromium reads the protocol from descriptor 3 and writes to 4
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self._process = subprocess.Popen(
            [str(PROGRAM), *_FLAGS, f"--user-data-dir={self._profile}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4),
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        """A new page that has loaded `url`."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Performance", "Network"):
            page.call(f"{domain}.enable")
        page.show(width, height, dark=dark)
        page.go(url)
        return page

    def call(self, method: str, values: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """One call of the protocol; AssertionError where it fails or takes longer than the time limit."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": values or {}}
        if session is not None:
            message["sessionId"] = session
        self._write(json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._timeout_s
        while number not in self._replies:
            self.receive(end - time.monotonic(), method)
        reply = self._replies.pop(number)
        assert "error" not in reply, f"{method}: {reply['error']}"
        found: dict[str, Any] = reply["result"]
        return found

    def receive(self, seconds: float, waiting_for: str) -> None:
        """Take the next message in: a reply, or an event of a page."""
        while b"\0" not in self._buffer:
            assert seconds > 0, f"no answer from the browser in {self._timeout_s} s: {waiting_for}"
            assert select.select([self._from], [], [], seconds)[0], f"no answer from the browser: {waiting_for}"
            data = os.read(self._from, 2**20)
            assert data, f"the browser ended while it was asked for {waiting_for}"
            self._buffer += data
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        if "id" in message:
            self._replies[message["id"]] = message
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]].happened(message["method"], message["params"])

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]


class Page:
    """One tab. `complaints`: uncaught errors, and what the browser logged against the page (breaches of its policy)."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self._loads = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """One call of the protocol for this page."""
        return self._browser.call(method, values, self._session)

    def happened(self, method: str, values: dict[str, Any]) -> None:
        """Note an event."""
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(values["exceptionDetails"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])

    def go(self, url: str) -> None:
        """Load `url`, and return when it has loaded."""
        before = self._loads
        self.call("Page.navigate", url=url)
        end = time.monotonic() + 60
        while self._loads == before:
            self._browser.receive(end - time.monotonic(), f"the load of {url}")

    def show(self, width: int, height: int, *, dark: bool = False, media: str = "screen") -> None:
        """The size of the window in CSS pixels, its colours, and what it is shown on (screen or print)."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{script}: {json.dumps(found['exceptionDetails'])}"
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """The expression's value as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return value

    def click(self, selector: str) -> None:
        """A real click into the middle of the first element that `selector` finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.run(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        """Real key strokes, by the names that `KeyboardEvent.key` has."""
        for key in keys:
            code, text = _KEYS.get(key, (ord(key[0].upper()), key))
            stroke = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", type="keyDown", **stroke)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def metrics(self) -> dict[str, float]:
        """The renderer's figures (ProcessTime: its CPU time in seconds, Nodes, JSHeapUsedSize, ...)."""
        return {one["name"]: one["value"] for one in self.call("Performance.getMetrics")["metrics"]}

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot (PNG) of the window, or of the whole page."""
        made = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(made["data"]))

    def printed(self, file: Path) -> None:
        """The page as PDF, as it would be printed."""
        file.write_bytes(base64.b64decode(self.call("Page.printToPDF")["data"]))


def _pipe() -> tuple[int, int]:
    """A pipe at descriptors from 10 on, out of the way of 3 and 4 in the child."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
