"""Pages as headless Chromium shows them; as a command, a picture of one:

python tests/helpers_chromium.py PAGE[?FILTERS][#PART] PICTURE [WIDTH HEIGHT]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Set where there is none and none can be installed: what a browser shows is not tested then.
WITHOUT = "SPIRE_TEST_WITHOUT_CHROMIUM"
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --log-level=0 --virtual-time-budget=3000"
).split()


def browser() -> str:
    """The browser's path; without one the test fails, unless the machine is said to have none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get(WITHOUT) == "1":
        pytest.skip(f"{WITHOUT}=1: what a browser makes of the page was NOT tested")
    assert found, (
        f"none of {', '.join(NAMES)} is installed: apt-get install chromium; or say {WITHOUT}=1,"
        " and what a browser makes of the page is not tested"
    )
    return found


def look(page: Path, *options: str, query: str = "") -> subprocess.CompletedProcess:
    """Open a page from its file and do what the options say, without network or profile."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            # No name is ever resolved: a page that needs the network would show it.
            [browser(), *OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND"]
            + [f"--user-data-dir={profile}", *options, page.resolve().as_uri() + query],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def console(done: subprocess.CompletedProcess) -> list:
    """What the page said on the console: errors of its scripts."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(
    page: Path, picture: Path, width: int = 1100, height: int = 1400, query: str = ""
) -> None:
    """A picture of the beginning of a page."""
    size = f"--window-size={width},{height}"
    look(page, f"--screenshot={picture.resolve()}", size, query=query)


def from_part(page: Path, part: str, copy: Path) -> None:
    """A copy of a page that begins with one of its parts: pictures of places further down stay
    empty in headless Chromium."""
    script = f"const part = document.getElementById({part!r});"
    script += "while (part.previousSibling) part.previousSibling.remove();"
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")


if __name__ == "__main__":
    address, _, part = sys.argv[1].partition("#")
    name, mark, filters = address.partition("?")
    with tempfile.TemporaryDirectory() as directory:
        shown = Path(name)
        if part:
            from_part(shown, part, Path(directory, "page.html"))
            shown = Path(directory, "page.html")
        screenshot(shown, Path(sys.argv[2]), *map(int, sys.argv[3:5]), query=mark + filters)
