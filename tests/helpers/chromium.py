"""Headless Chromium, driven through its DevTools protocol: what a person sees and clicks."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-background-networking",
    "about:blank",
)


@contextmanager
def chromium(folder: Path, *, size_px: tuple[int, int] = (1600, 900)) -> Iterator[Page]:
    """A page of a fresh browser whose profile is in ``folder``; the test is skipped without one."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)}); apt install chromium")
    window = f"--window-size={size_px[0]},{size_px[1]}"
    process = subprocess.Popen(
        [program, f"--user-data-dir={folder}", window, *OPTIONS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = Page(_page_socket(folder / "DevToolsActivePort", process))
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=size_px[0],
            height=size_px[1],
            deviceScaleFactor=1,
            mobile=False,
        )
        yield page
        page.close()
    finally:
        process.terminate()
        process.wait(timeout=20)


def _page_socket(active: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "Chromium ended"
        if active.exists() and (port := active.read_text().split("\n")[0]):
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        return str(target["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError("Chromium opened no page in 30 s")


class Page:
    """A page: ``requested`` holds the addresses it asked for, ``errors`` what its console says."""

    def __init__(self, url: str) -> None:
        self._socket = connect(url, max_size=None, compression=None)
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._n = 0
        self.requested: list[str] = []
        self.errors: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        with self._changed:
            self._n += 1
            n = self._n
            self._socket.send(json.dumps({"id": n, "method": method, "params": parameters}))
            if not self._changed.wait_for(lambda: n in self._answers, timeout=30):
                raise TimeoutError(method)
            answer = self._answers.pop(n)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def until(self, expression: str, *, timeout_s: float = 30.0) -> Any:
        """Wait until a JavaScript expression is true, and give it."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"not so after {timeout_s} s: {expression}"
            time.sleep(0.1)
        return found

    def click(self, label: str) -> None:
        """The button with this text, with the mouse."""
        place = self.until(
            "(() => { const b = [...document.querySelectorAll('button')].find("
            f"b => b.offsetParent && b.innerText.trim() == {json.dumps(label)});"
            "if (!b) return null; b.scrollIntoView({block: 'center'});"
            "const r = b.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Of what can be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _read(self) -> None:
        while True:
            try:
                message = json.loads(self._socket.recv())
            except ConnectionClosed:
                return
            with self._changed:
                self._take(message)
                self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, found = message["method"], message["params"]
        if method == "Network.requestWillBeSent":
            self.requested.append(found["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requested.append(found["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(found["exceptionDetails"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(found["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and found["type"] == "error":
            self.errors.append(str(found["args"]))
