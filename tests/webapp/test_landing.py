"""The landing page, and the documentation that it leads to."""

import html
import re
from collections.abc import Callable
from pathlib import Path

from bus import __version__
from bus.client_setup import Endpoints, build_client_setups
from bus.coordination import posts
from bus.db import Database
from tests.factories import make_agent, make_owner, make_project
from tests.webapp.web_client import BASE_URL, Browser, WebApp


def test_the_landing_page_shows_how_to_start(stranger: Browser) -> None:
    page = stranger.get("/").text
    text = html.unescape(page)
    assert "make run" in page
    for setup in build_client_setups(Endpoints(BASE_URL, f"{BASE_URL}/mcp"), "lbus_TOKEN"):
        assert setup.snippet in text
        assert f'<label for="client-{setup.key}">{setup.name}</label>' in page
    assert page.count(" checked>") == 1
    for target in ("/sign-in", "/docs/"):
        assert f'href="{target}"' in page
    (image,) = re.findall(r'property="og:image" content="([^"]+)"', page)
    assert image.startswith(f"{BASE_URL}/static/og.png?v=")
    picture = stranger.get(image.removeprefix(BASE_URL)).data
    assert picture[:4] == b"\x89PNG"
    assert len(picture) < 100_000


def test_every_page_names_version_licence_and_source(make_web: Callable[..., WebApp], stranger: Browser) -> None:
    footer = stranger.get("/sign-in").text.partition('class="site-footer"')[2]
    assert f"LLM Bus {__version__}" in footer
    assert "AGPL-3.0" in footer
    assert "Source" not in footer
    page = make_web(SOURCE_URL="https://code.example.org/bus").new_browser().get("/").text
    assert 'href="https://code.example.org/bus">Source</a>' in page
    assert "git clone https://code.example.org/bus llm-bus" in page


def test_the_figures_of_the_service_are_shown_where_they_are_public(
    make_web: Callable[..., WebApp], stranger: Browser, db: Database
) -> None:
    with db.transaction() as conn:
        make_agent(conn, make_project(conn, "apollo", make_owner(conn, "ada")), "writer")
    assert "On this server" not in stranger.get("/").text
    page = make_web(PUBLIC_STATS="1").new_browser().get("/").text
    assert "On this server" in page
    assert "<dt>handoffs</dt><dd>0</dd>" in page
    assert "of handoffs acknowledged" not in page
    assert "ada" not in page.partition("On this server")[2].partition("</section>")[0]


def test_the_shares_of_handoffs_are_shown_once_there_are_some(make_web: Callable[..., WebApp], db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", make_owner(conn, "ada"))
        alice, bob = make_agent(conn, project, "alice"), make_agent(conn, project, "bob")
        post = posts.create(conn, alice.ctx, "hello", to_actor="bob", ref="PR 1").post_id
        posts.create(conn, alice.ctx, "hello again", to_actor="bob", ref="PR 2")
        posts.create(conn, alice.ctx, "and again", to_actor="bob")
        posts.ack(conn, bob.ctx, [post])
    browser = make_web(PUBLIC_STATS="1").new_browser()
    answer = browser.get("/api/stats").get_json()
    assert (answer["acked_share"], answer["anchored_share"]) == (0.333, 0.667)
    page = browser.get("/").text
    assert "<dt>of handoffs acknowledged</dt><dd>33%</dd>" in page
    assert "<dt>of handoffs with a reference</dt><dd>67%</dd>" in page


def test_terms_and_privacy_are_shown_from_files_of_the_operator(
    make_web: Callable[..., WebApp], stranger: Browser, tmp_path: Path
) -> None:
    for name in ("terms", "privacy"):
        assert stranger.get(f"/{name}").status_code == 404
        assert f'href="/{name}"' not in stranger.get("/").text
    terms = tmp_path / "terms.md"
    terms.write_text("# Terms of use\n\n## Who we are\n\n<script>x</script> [us](https://example.org)\n")
    browser = make_web(TERMS_FILE=str(terms), PRIVACY_URL="https://example.org/privacy").new_browser()
    landing = browser.get("/").text
    assert '<a href="/terms">Terms</a>' in landing
    assert '<a href="https://example.org/privacy">Privacy</a>' in landing
    page = browser.get("/terms").text
    assert "<title>Terms of use · LLM Bus</title>" in page
    assert '<h2 id="who-we-are">Who we are</h2>' in page
    assert '<a href="https://example.org">us</a>' in page
    assert "<script>x" not in page
    terms.write_text("# Terms of use, second edition\n")
    assert "second edition" in browser.get("/terms").text


def test_every_page_of_the_documentation_leads_to_pages_that_exist(stranger: Browser) -> None:
    index = stranger.get("/docs/").text
    names = set(re.findall(r'href="(/docs/[^"#]+)"', index))
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert names == {f"/docs/{page.relative_to(docs).with_suffix('')}" for page in docs.rglob("*.md")}
    seen: dict[str, str] = {}
    while names:
        name = names.pop()
        page = stranger.get(name)
        assert page.status_code == 200, name
        seen[name] = page.text
        names |= set(re.findall(r'href="(/docs/[^"#]+)"', page.text)) - seen.keys()
    for name, text in seen.items():
        for target, anchor in re.findall(r'href="(/docs/[^"#]+)#([^"]+)"', text):
            assert f'id="{anchor}"' in seen[target], (name, target, anchor)
        assert '.md"' not in text.partition("<article")[2].partition("</article>")[0], name
        for source in re.findall(r'<img src="([^"]+)" alt="[^"]+', text):
            assert stranger.get(source).mimetype == "image/png", (name, source)
    assert "<img" in seen["/docs/howto/admin"]
    assert not [name for name, text in seen.items() if "&lt;!--" in text]
    assert stranger.get("/docs/images/nothing.png").status_code == 404
    assert stranger.get("/docs/howto/../../README").status_code in (301, 308, 404)
    assert stranger.get("/docs/howto/nothing").status_code == 404
