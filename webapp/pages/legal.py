"""Terms of use and privacy notice, from files of the operator."""

from pathlib import Path

from flask import render_template
from werkzeug.exceptions import NotFound

from webapp import markdown_pages
from webapp.blueprints import PublicBlueprint
from webapp.context import options

blueprint = PublicBlueprint("legal")


@blueprint.get("/terms")
def terms() -> str:
    """Show the terms of use; 404 unless TERMS_FILE is set."""
    return _show(options().terms_file)


@blueprint.get("/privacy")
def privacy() -> str:
    """Show the privacy notice; 404 unless PRIVACY_FILE is set."""
    return _show(options().privacy_file)


def _show(path: Path | None) -> str:
    if path is None:
        raise NotFound
    # Settings were checked at the start; a file that is gone since then is an error of the server.
    text = path.read_text(encoding="utf-8")
    return render_template(
        "legal/show.html",
        title=markdown_pages.read_title(text),
        content=markdown_pages.render(markdown_pages.parse(text)),
    )
