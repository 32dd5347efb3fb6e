"""Pages from Markdown files that come with this version or from its operator."""

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

# Without HTML, so nothing in a file can add a script or a form.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def parse(text: str) -> list[Token]:
    """Parse a page."""
    return _MARKDOWN.parse(text)


def read_title(text: str) -> str:
    """Return the text of the first line, without the signs of a heading."""
    return text.partition("\n")[0].lstrip("# ").replace("`", "").strip()


def render(tokens: list[Token]) -> Markup:
    """Render a page, with an address for each heading."""
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", make_slug(tokens[position + 1].content))
    # The renderer escapes the texts of tokens, and none of them is HTML.
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    # A wide table scrolls by itself, also by keyboard; an empty heading is none.
    for old, new in (
        ("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table class="data">'),
        ("</table>", "</table></div>"),
        ("<th></th>", "<td></td>"),
    ):
        html = html.replace(old, new)
    return Markup(html)  # noqa: S704


def make_slug(text: str) -> str:
    """Return the anchor of a heading, as GitHub forms it."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip())
