"""Texts of agents and people as HTML: Markdown without HTML, with links to what they name.

A text names a task (`task 17`), an event or a post (`#184`), a claimed number (`ADR-0049`), a path (`src/api/a.py`), an
address, or a reference of the project's patterns (`PR-142`). markdown-it-py renders it, and nh3 removes what is not on
a list of allowed elements.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import nh3
from flask import g, url_for
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from bus.coordination import references
from bus.coordination.references import LinkTargets
from bus.rules.ref_patterns import RefFinder
from bus.rules.text_format import shorten_ref
from webapp.context import connection

# Line ends stay, because many texts are not written as Markdown. Images would be requested from other sites.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True})
_MARKDOWN.enable(["strikethrough", "table"]).disable("image")
# Without tables. A table of N rows has as many cells in each as its first, so 8,000 characters can be 65,000 cells.
_MARKDOWN_WITHOUT_TABLES = MarkdownIt("commonmark", {"html": False, "breaks": True})
_MARKDOWN_WITHOUT_TABLES.enable("strikethrough").disable("image")
_MAX_TABLE_CELLS = 4_000
# A conversation can have 200 texts, each of which can take 0.2 seconds; ordinary ones take 2 milliseconds.
_MAX_SECONDS_PER_PAGE = 2.0
_ALLOWED_TAGS = {
    "a", "blockquote", "br", "code", "div", "em", "hr", "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td",
    "th", "thead", "tr", "ul",
}  # fmt: skip
_ALLOWED_ATTRIBUTES = {
    "a": {"class", "href", "rel", "title"},
    "div": {"aria-label", "class", "role", "tabindex"},
    "li": {"class"},
    "ol": {"start"},
    "p": {"class"},
    "table": {"class"},
    "td": {"class"},
    "th": {"class"},
}
_EXTERNAL = re.compile("https?:|//", re.IGNORECASE)
_EXTERNAL_REL = "noopener noreferrer nofollow"
_PATH = r"(?:\.?[\w@+-][\w.@+-]*/)+"
_NAMED = re.compile(
    r"(?P<address>https?://[^\s<>\"'`]+)"
    r"|(?<![\w#])(?P<task>[Tt]ask\s?#?(?P<task_number>\d{1,15}))(?!\w)"
    r"|(?<![\w&#/])(?P<event>#(?P<event_number>\d{1,15}))(?!\w)"
    rf"|(?<![\w./@+-])(?P<path>{_PATH}(?:[\w@+-][\w@+.-]*\.[A-Za-z]\w{{0,9}})?)(?![\w/])"
    r"|(?<![\w-])(?P<number>[A-Za-z][\w-]{0,15}?\d{1,16})(?![\w-])"
)
_CODE_PATH = re.compile(rf"{_PATH}(?:[\w*@+.-]+/)*[\w*@+.-]*")
_CHECK = re.compile(r"\[([ xX])\] ")
_TRAILING_PUNCTUATION = ".,;:!?"
_BRACKETS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class _Link:
    start: int
    end: int
    href: str
    is_external: bool


def link_targets() -> LinkTargets:
    """What the texts of the current project can link to; read once per request."""
    if "bus_link_targets" not in g:
        with connection() as conn:
            g.bus_link_targets = references.get_link_targets(conn, g.bus_project.id)
    targets: LinkTargets = g.bus_link_targets
    return targets


def render_text(text: str) -> Markup:
    """Render a text of the current project; as it is, where the texts of the page have taken very long already."""
    spent: float = g.get("bus_render_seconds", 0.0)
    if spent > _MAX_SECONDS_PER_PAGE:
        return Markup("<p>{}</p>").format(Markup("<br>\n").join(text.splitlines()))
    started = time.thread_time()
    html = render_markdown(text, link_targets(), _project_url)
    g.bus_render_seconds = spent + time.thread_time() - started
    return html


def _project_url(endpoint: str, **values: object) -> str:
    return url_for(endpoint, project_id=g.bus_project.id, **values)  # type: ignore[arg-type]


def render_markdown(text: str, targets: LinkTargets, build_url: Callable[..., str]) -> Markup:
    """Render a text as HTML.

    Args:
        text: Markdown; HTML in it stays text.
        targets: what it can link to.
        build_url: returns the address of a page of the project, from its endpoint and values.
    """
    finder = RefFinder(targets.patterns)
    parser = _MARKDOWN_WITHOUT_TABLES if _may_have_many_cells(text) else _MARKDOWN
    tokens = parser.parse(text)
    _mark_checks(tokens)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            # Headings of texts are no headings of the page.
            token.tag = "p"
            if token.type == "heading_open":
                token.attrSet("class", "text-heading")
        elif token.type == "inline":
            token.children = list(_add_links(token.children or [], finder, targets, build_url))
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    # A wide table scrolls by itself, also by keyboard; numbers are aligned without a style; an empty heading is none.
    for old, new in (
        ("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table class="data">'),
        ("</table>", "</table></div>"),
        (' style="text-align:right"', ' class="number"'),
        ("<th></th>", "<td></td>"),
    ):
        html = html.replace(old, new)
    return Markup(  # noqa: S704 - cleaned, with an allowlist
        nh3.clean(
            html,
            tags=_ALLOWED_TAGS,
            attributes=_ALLOWED_ATTRIBUTES,
            url_schemes={"http", "https", "mailto"},
            link_rel=None,
        )
    )


def _may_have_many_cells(text: str) -> bool:
    """Whether tables in a text could have more than _MAX_TABLE_CELLS: rows times columns of the widest row."""
    lines = text.splitlines()
    return len(lines) * max((line.count("|") for line in lines), default=0) > _MAX_TABLE_CELLS


def _mark_checks(tokens: list[Token]) -> None:
    """Show the boxes of a list of things to do, `- [ ]` and `- [x]`, as symbols."""
    for item, paragraph, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if item.type != "list_item_open" or paragraph.type != "paragraph_open" or not inline.children:
            continue
        text = inline.children[0]
        box = _CHECK.match(text.content) if text.type == "text" else None
        if box is not None:
            item.attrSet("class", "check")
            text.content = ("☐ " if box[1] == " " else "☑ ") + text.content[box.end() :]


def _add_links(
    tokens: list[Token], finder: RefFinder, targets: LinkTargets, build_url: Callable[..., str]
) -> Iterator[Token]:
    depth = 0
    for token in tokens:
        if token.type == "link_open":
            depth += 1
            address = str(token.attrGet("href"))
            if _EXTERNAL.match(address):
                token.attrSet("rel", _EXTERNAL_REL)
                # The text of a link, and a title that its author gave it, can be another address.
                token.attrSet("title", address)
        elif token.type == "link_close":
            depth -= 1
        if depth or token.type not in ("text", "code_inline"):
            yield token
        elif token.type == "code_inline":
            is_path = _CODE_PATH.fullmatch(token.content) is not None
            link = _Link(0, len(token.content), _lease_url(token.content, build_url), False) if is_path else None
            yield from [token] if link is None else _wrap(link, token)
        else:
            yield from _split(token, finder, targets, build_url)


def _split(token: Token, finder: RefFinder, targets: LinkTargets, build_url: Callable[..., str]) -> Iterator[Token]:
    text, position = token.content, 0
    for link in _find_links(text, finder, targets, build_url):
        if link.start < position:
            continue
        if link.start > position:
            yield _text(text[position : link.start])
        shown = text[link.start : link.end]
        yield from _wrap(link, _text(shorten_ref(shown) if "://" in shown else shown))
        position = link.end
    if position < len(text):
        yield _text(text[position:])


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _wrap(link: _Link, content: Token) -> Iterator[Token]:
    opened = Token("link_open", "a", 1, attrs={"href": link.href})
    if link.is_external:
        opened.attrSet("rel", _EXTERNAL_REL)
        if content.content != link.href:
            opened.attrSet("title", link.href)
    yield from (opened, content, Token("link_close", "a", -1))


def _find_links(text: str, finder: RefFinder, targets: LinkTargets, build_url: Callable[..., str]) -> list[_Link]:
    """Find the links of a text in their order; of those at one place the patterns of the project are first."""
    links = [_Link(match.start, match.end, match.address, True) for match in finder.find_all(text)]
    for match in _NAMED.finditer(text):
        link = _find_link(match, targets, build_url)
        if link is not None:
            links.append(link)
    return sorted(links, key=lambda link: link.start)


def _find_link(match: re.Match[str], targets: LinkTargets, build_url: Callable[..., str]) -> _Link | None:
    start, end = match.span()
    if match["address"]:
        address = _trim_address(match["address"])
        return _Link(start, start + len(address), address, True) if _MARKDOWN.validateLink(address) else None
    if match["task"]:
        number = int(match["task_number"])
        href = build_url("tasks.show", task_id=number) if 0 < number <= targets.last_task else None
    elif match["event"]:
        number = int(match["event_number"])
        href = build_url("ledger.show", seq=number) if 0 < number <= targets.last_event else None
    elif match["path"]:
        # "w/" is an abbreviation.
        href = _lease_url(match["path"], build_url) if len(match["path"]) > 2 else None
    else:
        href = build_url("refs.index", ref=match["number"]) if targets.find_number(match["number"]) else None
    return None if href is None else _Link(start, end, href, False)


def _lease_url(path: str, build_url: Callable[..., str]) -> str:
    return build_url("leases.index", surface=path)


def _trim_address(address: str) -> str:
    """Leave out what belongs to the sentence around an address: punctuation, and brackets that it does not open."""
    while address:
        last = address[-1]
        opening = _BRACKETS.get(last)
        if last in _TRAILING_PUNCTUATION or (opening and address.count(opening) < address.count(last)):
            address = address[:-1]
        else:
            break
    return address
