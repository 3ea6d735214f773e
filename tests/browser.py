"""A browser for tests: Chromium, driven over a pipe in its own protocol (CDP), as JSON messages.

Nothing but the standard library is needed, and a Chromium or Chrome on PATH.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars "
    "--no-first-run --no-default-browser-check --disable-extensions --disable-component-update "
    "--disable-background-networking --disable-sync --force-color-profile=srgb --mute-audio "
    "--remote-debugging-pipe"
).split()  # no sandbox: it is our own page, and containers often have none to give
PATIENCE = 60.0  # seconds to wait for an answer: machines may be busy

KEYS = {
    " ": ("Space", 32, " "),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
}


def executable() -> str | None:
    """Return the path of a Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One Chromium with one tab. What it says without being asked is kept in ``events``."""

    def __init__(self, profile: Path) -> None:
        program = executable()
        assert program is not None
        (theirs_in, self.out), (self.into, theirs_out) = _pipe(), _pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)),
        ]
        arguments = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = os.posix_spawn(
            program, arguments, os.environ, file_actions=actions, setpgroup=0
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.count, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self._target()
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _target(self) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for info in self.send("Target.getTargets")["targetInfos"]:
                if info["type"] == "page":
                    return str(info["targetId"])
            time.sleep(0.05)
        raise TimeoutError("Chromium opened no tab")

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(Exception):
            self.session = ""
            self.send("Browser.close")
        os.close(self.out)
        os.close(self.into)
        end = time.monotonic() + 10
        while os.waitpid(self.process, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.killpg(self.process, signal.SIGKILL)
            time.sleep(0.02)

    # The protocol ---------------------------------------------------------------------------------

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        while (answer := self._read()).get("id") != self.count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not select.select([self.into], [], [], PATIENCE)[0]:
                raise TimeoutError("Chromium did not answer")
            data = os.read(self.into, 1 << 20)
            if not data:
                raise EOFError("Chromium ended")
            self.rest += data
        message, self.rest = self.rest.split(b"\0", 1)
        return dict(json.loads(message))

    # What a reader does ---------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Load a page."""
        self.events.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait(lambda: self.run("document.readyState") == "complete")

    @contextlib.contextmanager
    def frame(self) -> Iterator[None]:
        """Within it, `run` runs in the frame of the page, which may be a process of its own."""
        outer, self.session = self.session, ""
        found: list[str] = []

        def frames() -> list[str]:
            infos = self.send("Target.getTargets")["targetInfos"]
            found[:] = [info["targetId"] for info in infos if info["type"] == "iframe"]
            return found

        self.wait(frames, "there is no frame")
        attached = self.send("Target.attachToTarget", targetId=found[0], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Runtime", "Log"):
            self.send(f"{domain}.enable")
        try:
            yield
        finally:
            self.session = outer

    def run(self, script: str) -> Any:
        """Evaluate JavaScript and return its value."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", found))
        return found["result"].get("value")

    def wait(self, condition: Callable[[], object], message: str = "it did not happen") -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(message)
            time.sleep(0.02)

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key."""
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        event |= {"modifiers": 8 if shift else 0}
        down = {"text": text} if text else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **event, **down)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector: str) -> None:
        """Click into the middle of an element, wherever it has been scrolled to."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block:'nearest'}})"
        )
        x, y = self.run(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """Set media features, such as ``prefers_color_scheme="dark"``."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.send("Emulation.setEmulatedMedia", features=named)

    def screenshot(self, path: Path) -> None:
        """Save a picture of what is to be seen."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """Return what the page had to complain about: errors, and violations of its policy."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(str(params["args"]))
        return found

    def requests(self) -> list[str]:
        """Return the addresses of all that was asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


def _pipe() -> tuple[int, int]:
    """Make a pipe whose ends have numbers above those that are given to the browser."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]
