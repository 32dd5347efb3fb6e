"""The documentation that comes with this version, rendered from its Markdown files."""

import functools
import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit

from flask import Response, render_template, send_from_directory, url_for
from markdown_it.token import Token
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from webapp import markdown_pages
from webapp.blueprints import PublicBlueprint

blueprint = PublicBlueprint("documentation", url_prefix="/docs")

_PACKAGE_DIR = Path(__file__).resolve().parents[1]
# The wheel puts the documentation into the package; a checkout has it beside it.
_DOCS_DIR = next(
    (path for path in (_PACKAGE_DIR / "docs", _PACKAGE_DIR.parent / "docs") if path.is_dir()), _PACKAGE_DIR / "docs"
)
_SECTIONS = (
    ("tutorials", "Tutorials"),
    ("howto", "How to"),
    ("reference", "Reference"),
    ("explanation", "Explanation"),
    ("decisions", "Decisions"),
)
# Marks for the programs that write a part of a page.
_COMMENT = re.compile(r"^<!--.*-->\n", re.MULTILINE)
# The list of pages begins with it.
_FIRST_PAGE = "two-agents"


@blueprint.get("/")
def index() -> str:
    """List the pages by section."""
    # Pages in no folder, such as the glossary, belong to the reference.
    sections = [
        (
            title,
            [
                (name, text)
                for name, text in _list_pages().items()
                if (name.rpartition("/")[0] or "reference") == folder
            ],
        )
        for folder, title in _SECTIONS
    ]
    return render_template("documentation/index.html", sections=sections)


@blueprint.get("/<path:name>")
def show(name: str) -> str:
    """Show a page."""
    pages = _list_pages()
    if name not in pages:
        raise NotFound
    return render_template("documentation/show.html", title=pages[name], content=_render(name))


@blueprint.get("/images/<name>")
def image(name: str) -> Response:
    """Send a picture of a page."""
    if name not in _list_images():
        raise NotFound
    return send_from_directory(_DOCS_DIR / "images", name, max_age=86_400)


@functools.cache
def _list_images() -> frozenset[str]:
    return frozenset(path.name for path in (_DOCS_DIR / "images").glob("*.png"))


@functools.cache
def _list_pages() -> dict[str, str]:
    """The title of each page by name, which is its path without the ending."""
    paths = sorted(_DOCS_DIR.rglob("*.md"), key=lambda path: (path.stem != _FIRST_PAGE, path))
    return {str(path.relative_to(_DOCS_DIR).with_suffix("")): _read_title(path) for path in paths}


def _read_title(path: Path) -> str:
    return markdown_pages.read_title(path.read_text(encoding="utf-8"))


def _render(name: str) -> Markup:
    text = _COMMENT.sub("", (_DOCS_DIR / f"{name}.md").read_text(encoding="utf-8"))
    tokens = markdown_pages.parse(text)
    for token in tokens:
        if token.type == "inline":
            _resolve_links(token.children or [], name)
    return markdown_pages.render(tokens)


def _resolve_links(tokens: list[Token], name: str) -> None:
    """Turn links between files into links between pages; links to other files of the source stay text."""
    is_open = False
    for token in tokens:
        if token.type == "image":
            file_name = posixpath.basename(str(token.attrGet("src")))
            token.attrs |= {"src": url_for("documentation.image", name=file_name), "loading": "lazy"}
        elif token.type == "link_open":
            target = _resolve(str(token.attrGet("href")), name)
            is_open = target is not None
            if target is not None:
                token.attrSet("href", target)
            else:
                token.tag, token.attrs = "span", {}
        elif token.type == "link_close" and not is_open:
            token.tag = "span"


def _resolve(target: str, name: str) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or not parts.path:
        return target
    page = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path)).removesuffix(".md")
    if page not in _list_pages():
        return None
    return url_for("documentation.show", name=page, _anchor=parts.fragment or None)
