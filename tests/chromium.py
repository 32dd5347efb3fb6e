"""Where the browser of the browser tests is."""

import os
import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
LEFT_OUT = "no Chromium was found (set CHROMIUM, or install Debian's package chromium)"


def find() -> str | None:
    """The Chromium of this machine: CHROMIUM, else one that is on the PATH."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
