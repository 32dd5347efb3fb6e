"""The Chromium that the browser tests use."""

import os
import shutil

# The headless shell renders as Chromium does and takes a third of its CPU.
_EXECUTABLE_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
)
SKIP_REASON = "no Chromium was found (set CHROMIUM, or install the Debian package chromium-headless-shell)"


def find_chromium() -> str | None:
    """Return the path in CHROMIUM, else a Chromium on the PATH."""
    configured = os.environ.get("CHROMIUM")
    if configured:
        return configured
    return next((path for name in _EXECUTABLE_NAMES if (path := shutil.which(name))), None)
