"""A headless browser, where one is installed: Debian's chromium, or playwright's own."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOW_TO_INSTALL = "no headless browser: `apt-get install chromium` and `pip install playwright`"

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class NoBrowser(Exception):
    """No browser is installed; the message says how to get one."""


@contextlib.contextmanager
def browser() -> Iterator["Browser"]:
    """A browser without a window.

    Raises:
        NoBrowser: none is installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowser(HOW_TO_INSTALL) from error
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, _NAMES)), None) or playwright.chromium.executable_path
        if not Path(found).exists():
            raise NoBrowser(HOW_TO_INSTALL)
        # Root has no sandbox in chromium, and a container's /dev/shm may be small.
        running = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield running
        finally:
            running.close()
