"""The Chromium that the browser tests use."""

import os
import shutil

_EXECUTABLE_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
SKIP_REASON = "no Chromium was found (set CHROMIUM, or install the Debian package chromium)"


def find_chromium() -> str | None:
    """Return the path in CHROMIUM, else a Chromium on the PATH."""
    configured = os.environ.get("CHROMIUM")
    if configured:
        return configured
    return next((path for name in _EXECUTABLE_NAMES if (path := shutil.which(name))), None)
