"""Texts as HTML: Markdown without HTML, and links to what they name."""

import re

import pytest
from flask import g

from bus.coordination.references import LinkTargets, SequencePrefix
from bus.rules.ref_patterns import RefPattern
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import WebApp
from webapp.rich_text import render_markdown, render_text

_TARGETS = LinkTargets(
    patterns=(RefPattern(r"PR-(\d+)", "https://github.com/acme/shop/pull/$1"),),
    prefixes=(SequencePrefix("adr", "ADR-", 60),),
    last_event=500,
    last_task=20,
)


def _build_url(endpoint: str, **values: object) -> str:
    return "/".join(["", endpoint, *(f"{name}={value}" for name, value in values.items())])


def _render(text: str, targets: LinkTargets = _TARGETS) -> str:
    return str(render_markdown(text, targets, _build_url))


def _links(text: str) -> list[tuple[str, str]]:
    links = re.findall(r'<a href="([^"]*)"[^>]*>(.*?)</a>', _render(text))
    return [(re.sub("<.*?>", "", shown), href.replace("&amp;", "&")) for href, shown in links]


def test_markdown_is_rendered_and_line_ends_stay() -> None:
    html = _render("# Title\nfirst\nsecond **bold** ~~gone~~ `code`\n\n- a\n- b\n\n| x |\n|---|\n| 1 |")
    assert '<p class="text-heading">Title</p>' in html
    assert "first<br>" in html
    assert "<strong>bold</strong> <s>gone</s> <code>code</code>" in html
    assert "<li>a</li>" in html
    assert '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table class="data">' in html


def test_numbers_of_a_table_are_aligned_without_a_style() -> None:
    html = _render('| a | b |\n|---|---:|\n| `" style="text-align:right"` | 2 |')
    assert '<th class="number">b</th>' in html
    assert '<td class="number">2</td>' in html
    assert '" style="text-align:right"</code>' in html.replace("&quot;", '"')
    assert "<td style" not in html


def test_things_to_do_have_boxes() -> None:
    html = _render("- [ ] open\n- [x] PR-3 is done\n- [ ]tight\n- plain\n\n[x] no list")
    assert '<li class="check">☐ open</li>' in html
    assert '<li class="check">☑ <a' in html
    assert "<li>[ ]tight</li>" in html
    assert "<p>[x] no list</p>" in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>)",
        "![x](https://example.org/pixel.png)",
        '<https://example.org/"onmouseover=alert(1)>',
        'https://example.org/"><script>alert(1)</script>',
        "`<b>`",
    ],
)
def test_a_text_cannot_add_elements_of_its_own(text: str) -> None:
    html = _render(text)
    elements = set(re.findall(r"<([a-z]+)", html))
    assert elements <= {"p", "a", "code", "br"}
    assert set(re.findall(r"\s([a-z-]+)=\"", "".join(re.findall("<a[^>]*>", html)))) <= {"href", "rel", "title"}
    assert not re.search(r'href="(?!https?://|/)', html)


@pytest.mark.parametrize(
    ("text", "links"),
    [
        (
            "task 17 and Task #3, not task 21 or tasks",
            [("task 17", "/tasks.show/task_id=17"), ("Task #3", "/tasks.show/task_id=3")],
        ),
        ("see #184 and (#7), not #501, a#1, #12a", [("#184", "/ledger.show/seq=184"), ("#7", "/ledger.show/seq=7")]),
        (
            "ADR-49 or ADR-0049, not ADR-61 or XADR-4",
            [("ADR-49", "/refs.index/ref=ADR-49"), ("ADR-0049", "/refs.index/ref=ADR-0049")],
        ),
        (
            "edit src/api/users.py and src/api/, not and/or, 1/2, w/ it",
            [
                ("src/api/users.py", "/leases.index/surface=src/api/users.py"),
                ("src/api/", "/leases.index/surface=src/api/"),
            ],
        ),
        (
            "`src/**` and `migrations/0042`, not `a b/c`",
            [("src/**", "/leases.index/surface=src/**"), ("migrations/0042", "/leases.index/surface=migrations/0042")],
        ),
        ("PR-142!", [("PR-142", "https://github.com/acme/shop/pull/142")]),
        ("[PR-142](https://example.org/x) #1", [("PR-142", "https://example.org/x"), ("#1", "/ledger.show/seq=1")]),
        ("(https://example.org/a_(b)).", [("example.org/a_(b)", "https://example.org/a_(b)")]),
        (
            "https://github.com/acme/shop/pull/142?x=PR-1, then",
            [("acme/shop#142", "https://github.com/acme/shop/pull/142?x=PR-1")],
        ),
        ("https://", []),
        ("`#1`\n\n    task 1", []),
        ("**PR-1** _task 2_", [("PR-1", "https://github.com/acme/shop/pull/1"), ("task 2", "/tasks.show/task_id=2")]),
    ],
)
def test_what_a_text_names_becomes_a_link(text: str, links: list[tuple[str, str]]) -> None:
    assert _links(text) == links


def test_a_project_without_anything_links_addresses_alone() -> None:
    html = _render("task 1 #1 ADR-1 PR-1 https://example.org", LinkTargets())
    assert re.findall('href="([^"]*)"', html) == ["https://example.org"]
    assert 'rel="noopener noreferrer nofollow"' in html


@pytest.mark.parametrize(
    "text",
    [
        f"|{'a|' * 60}\n|{'-|' * 60}\n" + "|\n" * 3_800,
        f"{'|'.join('a' * 1300)}\n{'|'.join('-' * 1300)}\n" + "a\n" * 1_400,
        "> " + "|a" * 1_000 + "\n> " + "|-" * 1_000 + "\n" + "> |\n" * 900,
    ],
    ids=["many rows", "many columns", "quoted"],
)
def test_a_text_is_never_many_times_as_long_as_html(text: str) -> None:
    # Rows are filled up to the number of columns, so this was 680,000 characters and a second.
    assert len(_render(text[:8_000])) < 100_000


def test_a_large_table_of_a_usual_shape_is_a_table() -> None:
    html = _render("|a|b|c|d|e|f|\n|-|-|-|-|-|-|\n" + "|1|2|3|4|5|6|\n" * 500)
    assert html.count("<tr>") == 501


@pytest.mark.parametrize(
    "text",
    [
        "[https://bank.example](HTTPS://evil.example)",
        '[https://bank.example](//evil.example "https://bank.example")',
        "[https://bank.example](https://evil.example)",
    ],
)
def test_a_link_to_another_site_shows_where_it_leads(text: str) -> None:
    html = _render(text)
    assert re.search(r'title="[^"]*//evil.example"', html), html
    assert 'rel="noopener noreferrer nofollow"' in html
    assert html.count("bank.example") == 1


def test_a_page_of_many_expensive_texts_shows_the_last_ones_as_they_are(
    site: WebApp, sample: SampleData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.rich_text.link_targets", lambda: _TARGETS)
    with site.app.test_request_context():
        g.bus_project = sample.full_project
        assert "<strong>a</strong>" in render_text("**a**")
        assert "<strong>a</strong>" in render_text("**a**")
        monkeypatch.setattr("webapp.rich_text._MAX_SECONDS_PER_PAGE", 0.0)
        assert render_text("**a** <b>\nb") == "<p>**a** &lt;b&gt;<br>\nb</p>"
