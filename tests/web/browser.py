"""Headless Chromium, driven over the WebDriver protocol with the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

LIMIT_SECONDS = 120.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver names an element."""
MISSING = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]


class Browser:
    """One window until the end of the block."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = ["chromedriver", f"--port={self._port}", "--log-level=SEVERE"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._options: dict[str, Any] = {
            "args": ["--headless=new", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={self._directory.name}"],
        }
        self._has_script = True
        self._session = ""

    def __enter__(self) -> Self:
        deadline = time.monotonic() + LIMIT_SECONDS
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": self._options}}}
        while True:
            try:
                self._session = self._call("POST", "/session", wanted)["sessionId"]
            except OSError:
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.1)
            else:
                self._post("/timeouts", script=int(LIMIT_SECONDS * 1000))
                return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._call("DELETE", f"/session/{self._session}")
        self._process.terminate()
        self._process.wait(LIMIT_SECONDS)
        self._directory.cleanup()

    def open(self, address: str) -> None:
        """Load a page and wait until it is whole."""
        self._post("/url", url=address)

    def resize(self, width: int, height: int = 900) -> None:
        """The size of what is seen, also narrower than a window may be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._post("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics)

    def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._post("/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"media": "", "features": features})

    def print_media(self) -> None:
        """Show the page as it is printed, until ``prefer`` is called."""
        self._post("/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"media": "print"})

    def printed(self) -> bytes:
        """The page as a PDF on A4."""
        return base64.b64decode(self._post("/print", page={"width": 21.0, "height": 29.7}))

    def allow_scripts(self, *, is_allowed: bool) -> None:
        """Whether pages may run scripts; without them ``run`` works no more."""
        given = {"value": not is_allowed}
        self._post("/goog/cdp/execute", cmd="Emulation.setScriptExecutionDisabled", params=given)
        self._has_script = is_allowed

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns in the page; the page's own policy does not bind it."""
        return self._post("/execute/sync", script=script, args=arguments)

    def run_async(self, script: str) -> Any:
        """What a script gives to the function that is its last argument."""
        return self._post("/execute/async", script=script, args=[])

    def texts(self, selector: str) -> list[str]:
        """What the elements say, all at one moment where scripts run: the page may replace them meanwhile."""
        if self._has_script:
            script = "return Array.from(document.querySelectorAll(arguments[0]), it => it.innerText)"
            return list(self.run(script, selector))
        found = self._post("/elements", using="css selector", value=selector)
        return [self._call("GET", f"/session/{self._session}/element/{each[ELEMENT]}/text") for each in found]

    def await_text(self, selector: str, text: str) -> None:
        """Wait until the only such element says this: what a key or a click leads to comes a moment later."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self._texts_or_none(selector) != [text]:
            assert time.monotonic() < deadline, f"waited in vain for {text!r} in {selector}"
            time.sleep(0.05)

    def _texts_or_none(self, selector: str) -> list[str] | None:
        """None: the page was replaced meanwhile."""
        try:
            return self.texts(selector)
        except AssertionError:
            return None

    def click(self, selector: str) -> None:
        """Click the first such element."""
        element = self._post("/element", using="css selector", value=selector)[ELEMENT]
        self._post(f"/element/{element}/click")

    def click_on(self, text: str) -> None:
        """Click the first link or button of the page's main part that says this."""
        xpath = f"//main//*[self::a or self::button][normalize-space()='{text}']"
        element = self._post("/element", using="xpath", value=xpath)[ELEMENT]
        self._post(f"/element/{element}/click")

    def press(self, keys: str) -> None:
        """Keys for whatever has the focus."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    def picture(self, path: Path, height: int | None = None) -> None:
        """The whole page, or its upper part, as a file of the kind that its name ends in: ``png`` or ``webp``."""
        clip = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        area = {"x": 0, "y": 0, "width": clip[0], "height": height or clip[1], "scale": 1}
        given = {"format": path.suffix[1:], "captureBeyondViewport": True, "clip": area}
        shot = self._post("/goog/cdp/execute", cmd="Page.captureScreenshot", params=given)
        path.write_bytes(base64.b64decode(shot["data"]))

    def processor_seconds(self) -> float:
        """What all processes of Chromium that run have used up to now."""
        times = [each.cpu_times() for each in psutil.Process(self._process.pid).children(recursive=True)]
        return sum(each.user + each.system for each in times)

    def address(self) -> str:
        """Where it is now."""
        return str(self._call("GET", f"/session/{self._session}/url"))

    def _post(self, path: str, **fields: Any) -> Any:
        return self._call("POST", f"/session/{self._session}{path}", fields)

    def _call(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_SECONDS)
        try:
            connection.request(method, path, None if fields is None else json.dumps(fields))
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer
