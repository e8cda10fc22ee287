"""Pages as headless Chromium shows them; as a command, a picture of one:

python tests/helpers_chromium.py PAGE PICTURE [WIDTH HEIGHT]
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


def look(page: Path, *options: str) -> subprocess.CompletedProcess:
    """Open a page from its file and do what the options say, without network or profile."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            # No name is ever resolved: a page that needs the network would show it.
            [browser(), *OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND"]
            + [f"--user-data-dir={profile}", *options, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def console(done: subprocess.CompletedProcess) -> list:
    """What the page said on the console: errors of its scripts."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(page: Path, picture: Path, width: int = 1100, height: int = 1400) -> None:
    """A picture of the upper left of a page."""
    look(page, f"--screenshot={picture.resolve()}", f"--window-size={width},{height}")


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:5]))
