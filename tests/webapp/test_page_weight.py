"""What a browser transfers: the first page with its assets, and later pages; and where assets come from."""

import gzip
import hashlib
import re
import secrets
from pathlib import Path

import pytest

from bus.coordination import leases, posts, tasks
from bus.db import Database
from tests.factories import make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser
from webapp import identity

_STATIC = Path(identity.__file__).parent / "static"
_MAX_FIRST_LOAD_BYTES = 120_000
_MAX_PAGE_BYTES = 25_000
_PATHS = ("", "board/", "handoffs/", "tasks/", "ledger/", "leases/", "participants/", "settings/", "handoffs/new")


def _assets(page: str) -> set[str]:
    return set(re.findall(r'(?:href|src)="(/static/[^"#]+)', page))


def test_the_first_load_is_small(ada: Browser, sample: SampleData) -> None:
    for path in ("/", "/admin/", project_path(sample, "board/"), project_path(sample, "handoffs/")):
        page = ada.get(path)
        loaded = {url for url in _assets(page.text) if not url.startswith("/static/apple-touch-icon")}
        answers = {url: ada.get(url, headers={"Accept-Encoding": "gzip"}) for url in loaded}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert "/static/inter.woff2" in {url.partition("?")[0] for url in loaded}
        total = len(page.data) + sum(len(answer.data) for answer in answers.values())
        assert total < _MAX_FIRST_LOAD_BYTES, (path, {url: len(answer.data) for url, answer in answers.items()})


# What a browser sends when a link of a page of this site is followed.
_LINK_HEADERS = {"Accept-Encoding": "gzip", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}


def test_later_pages_are_small_also_when_they_are_full(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "demo-backend-1")
        for number in range(60):
            ref, subject = f"PR-{number}", f"Ready for review: part {number} of the cart"
            posts.create(conn, agent.ctx, secrets.token_hex(100), to_lane="review", subject=subject, ref=ref)
            tasks.create(conn, agent.ctx, secrets.token_hex(20), lane="review")
            leases.acquire(conn, agent.ctx, f"src/{number}.py", note=secrets.token_hex(20))
    sizes = {path: len(ada.get(project_path(sample, path), headers=_LINK_HEADERS).data) for path in _PATHS}
    sizes["/admin/"] = len(ada.get("/admin/", headers=_LINK_HEADERS).data)
    assert max(sizes.values()) < _MAX_PAGE_BYTES, sizes


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "cors", "X-Part": "1"},
        {"Accept-Encoding": "identity"},
    ],
    ids=str,
)
def test_a_page_that_other_input_led_to_is_not_compressed(ada: Browser, headers: dict[str, str]) -> None:
    page = ada.get("/admin/", headers={**_LINK_HEADERS, **headers})
    assert "Content-Encoding" not in page.headers
    assert {"Accept-Encoding", "Sec-Fetch-Site"} <= set(page.vary)
    assert gzip.decompress(ada.get("/admin/", headers=_LINK_HEADERS).data).startswith(b"<!doctype html>")


def test_a_page_with_a_secret_is_not_compressed(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, f"participants/{sample.route_values['participation_id']}"))
    card = ada.submit(project_path(sample, f"participants/{sample.route_values['participation_id']}/rotate")).location
    page = ada.get(card, headers=_LINK_HEADERS)
    assert "Content-Encoding" not in page.headers
    assert "lbus_" in page.text


def test_assets_are_kept_by_browsers_and_compressed(ada: Browser) -> None:
    page = ada.get("/admin/").text
    for url in _assets(page):
        answer = ada.get(url, headers={"Accept-Encoding": "gzip"})
        assert "immutable" in answer.headers["Cache-Control"], url
        is_text = url.partition("?")[0].endswith((".css", ".js", ".svg"))
        is_large = len(ada.get(url).data) > 1_000
        assert (answer.headers.get("Content-Encoding") == "gzip") == (is_text and is_large), url


def test_the_style_sheet_names_the_font_by_its_content() -> None:
    digest = hashlib.sha256((_STATIC / "inter.woff2").read_bytes()).hexdigest()[:12]
    assert f'url("inter.woff2?v={digest}")' in (_STATIC / "bus.css").read_text()


def test_pages_request_nothing_from_others(ada: Browser, sample: SampleData) -> None:
    for path in ("/admin/", project_path(sample, "board/"), "/"):
        page = ada.get(path)
        assert re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//', page.text) == []
        assert "font-src 'self'" in page.headers["Content-Security-Policy"]
    for sheet in _STATIC.glob("*.css"):
        assert "http" not in re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.S)


def test_fixed_addresses_of_browsers_exist(ada: Browser) -> None:
    assert ada.get("/favicon.ico").data[:4] == b"\x00\x00\x01\x00"
    assert ada.get("/apple-touch-icon.png").data[:4] == b"\x89PNG"
    robots = ada.get("/robots.txt")
    assert (robots.mimetype, "Disallow: /admin/" in robots.text) == ("text/plain", True)
    page = ada.get("/").text
    for needed in ('name="description"', 'name="theme-color"', 'rel="apple-touch-icon"'):
        assert needed in page
