"""`python -m cli.reference FOLDER`: write the pages."""

import sys
from pathlib import Path

from cli.reference import commands, error_codes, events, http_routes, metrics

PAGES = {
    "commands.md": commands.render_page,
    "error-codes.md": error_codes.render_page,
    "events.md": events.render_page,
    "http.md": http_routes.render_page,
    "metrics.md": metrics.render_page,
}


def main() -> None:
    """Write each page into the folder."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cli.reference FOLDER")
    for name, render in PAGES.items():
        Path(sys.argv[1], name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
