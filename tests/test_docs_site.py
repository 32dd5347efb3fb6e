"""`make docs-site`: every page is in the site, its links resolve, and it requests nothing from another host."""

import functools
import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from scripts import docs_site
from tests.chromium import SKIP_REASON, find_chromium
from webapp import markdown_pages

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
_LINK = re.compile(r"\]\((?!\w+:|#)([^()\s#]+)")
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
# Elements whose numbers differ where one Markdown parser reads a page in another way.
_COUNTED_TAGS = ("h2", "h3", "li", "table", "tr", "pre")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that MkDocs reads."""
    folder = tmp_path_factory.mktemp("pages") / "docs"
    docs_site.write_pages(folder)
    return folder


def test_every_link_of_the_pages_leads_to_a_file(pages: Path) -> None:
    broken = [
        (path.relative_to(pages), target)
        for path in pages.rglob("*.md")
        for target in _LINK.findall(_FENCE.sub("", path.read_text("utf-8")))
        if not (path.parent / target).is_file()
    ]
    assert broken == []
    assert (pages / "source" / "deploy" / "nginx.conf.md").exists()


def test_the_navigation_has_every_page(pages: Path) -> None:
    first, *sections = docs_site.make_navigation(pages)
    assert first == {"LLM Bus": "index.md"}
    listed = [page for section in sections for names in section.values() for page in names]  # type: ignore[attr-defined]
    assert sorted([*listed, "index.md"]) == sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.md"))


def test_blocks_of_code_keep_their_text(pages: Path) -> None:
    name = "howto/containers.md"
    written, read = ((folder / name).read_text("utf-8") for folder in (pages, _DOCS))
    assert written.count("```") == read.count("```")
    assert [block.split("\n")[1:] for block in _FENCE.findall(written)] == [
        block.split("\n")[1:] for block in _FENCE.findall(read)
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    built = subprocess.run(
        [str(_ROOT / ".ci" / "docs-site"), "--output", str(folder)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


class _References(HTMLParser):
    """What a page loads by itself; a link that a reader follows is none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "srcset", "poster", "data", "style") or (name == "href" and tag == "link")
        ]


@pytest.mark.exhaustive
def test_no_page_and_no_style_names_a_file_of_another_host(site: Path) -> None:
    foreign = []
    for path in site.rglob("*.html"):
        references = _References()
        references.feed(path.read_text("utf-8"))
        foreign += [(path.name, address) for address in references.addresses if re.search(r"(?:https?:)?//", address)]
    for path in site.rglob("*.css"):
        foreign += [
            (path.name, address)
            for address in re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", path.read_text("utf-8"))
        ]
    assert foreign == []


@pytest.mark.exhaustive
def test_a_page_of_the_site_has_the_elements_of_the_page_of_the_service(site: Path) -> None:
    differing = []
    for path in sorted(_DOCS.rglob("*.md")):
        page = path.relative_to(_DOCS).with_suffix("")
        built = (site / (page.parent if page.name == "README" else page) / "index.html").read_text("utf-8")
        article = built.partition("<article")[2].partition("</article>")[0]
        served = str(markdown_pages.render(markdown_pages.parse(path.read_text("utf-8"))))
        for tag in _COUNTED_TAGS:
            counts = [len(re.findall(rf"<{tag}[ >]", html)) for html in (served, article)]
            if counts[0] != counts[1]:
                differing.append((str(page), tag, counts))
    assert differing == []


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.exhaustive
@pytest.mark.skipif(find_chromium() is None, reason=SKIP_REASON)
def test_a_browser_requests_nothing_from_another_host(site: Path) -> None:
    requested: list[str] = []
    errors: list[str] = []
    with _served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path in sorted(site.rglob("index.html")):
            page.goto(f"{address}/{path.parent.relative_to(site).as_posix()}/", wait_until="load")
        page.goto(f"{address}/?q=fence", wait_until="load")
        page.locator(".md-search-result__item a").first.wait_for(state="attached")
        assert "leases" in (page.locator(".md-search-result__list").inner_html())
        browser.close()
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []
    assert len(requested) > 100
