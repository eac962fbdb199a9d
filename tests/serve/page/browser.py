"""Headless Chromium, spoken to through its debugging pipe (`--remote-debugging-pipe`): JSON, ended by a zero byte."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ANSWER_S = 60
_EXEC = """
import os, sys
one, other = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
os.dup2(one, 3), os.dup2(other, 4)  # where Chromium looks for them
os.set_inheritable(3, True), os.set_inheritable(4, True)  # they may have been there by chance
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self._process, self._read, self._write = process, read, write
        self._buffer = b""
        self._number = 0
        self.told: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        return self._ask(method, parameters, session=self._session)

    def open(self, url: str) -> None:
        """Go there, and wait until the page has loaded."""
        self.told.clear()
        self("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href.startsWith('http')")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true; gives its value."""
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        while not (value := self.js(expression)):
            assert time.monotonic_ns() < end_ns, f"never true: {expression}\n{self.js('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def press(self, key: str, code: int) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {}  # it is the character that presses a button
        self("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def dark(self, on: bool) -> None:
        value = "dark" if on else "light"
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def shot(self, path: Path) -> None:
        """A picture of the whole page."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def complaints(self) -> list[str]:
        """Errors, exceptions, and what the content security policy kept out, since the page was opened."""
        found = []
        for event in self.told:
            entry = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(entry["exceptionDetails"].get("text")))
            elif event["method"] == "Log.entryAdded" and entry["entry"]["level"] == "error":
                found.append(entry["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and entry["type"] == "error":
                found.append(str(entry["args"]))
        return found

    def asked(self) -> list[str]:
        """Addresses that the page has asked for."""
        return [e["params"]["request"]["url"] for e in self.told if e["method"] == "Network.requestWillBeSent"]

    def _ask(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end_ns = time.monotonic_ns() + _ANSWER_S * 1_000_000_000
        while True:
            assert time.monotonic_ns() < end_ns, f"no answer to {method}"
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            if "method" in told:
                self.told.append(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed: Debian package chromium")
    to_read, to_write = os.pipe(), os.pipe()
    command = [
        program,
        "--headless=new",
        "--no-sandbox",  # root runs the tests
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", _EXEC, str(to_write[0]), str(to_read[1]), *command],
        pass_fds=(to_write[0], to_read[1]),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_write[0])
    os.close(to_read[1])
    try:
        yield Browser(process, to_read[0], to_write[1])
    finally:
        os.close(to_read[0])
        os.close(to_write[1])
        process.kill()
        process.wait()
