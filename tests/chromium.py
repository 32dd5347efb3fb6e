"""Where the browser of the browser tests is."""

import os
import shutil

_EXECUTABLE_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
SKIP_REASON = "no Chromium was found (set CHROMIUM, or install Debian's package chromium)"


def find_chromium() -> str | None:
    """The Chromium of this machine: CHROMIUM, else one that is on the PATH."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    return next((path for name in _EXECUTABLE_NAMES if (path := shutil.which(name))), None)
