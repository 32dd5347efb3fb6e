"""The landing page, and the documentation that it leads to."""

import html
import re
from collections.abc import Callable

from bus import __version__
from bus.client_setup import Endpoints, build_client_setups
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
    assert "ada" not in page.partition("On this server")[2].partition("</section>")[0]


def test_every_page_of_the_documentation_leads_to_pages_that_exist(stranger: Browser) -> None:
    index = stranger.get("/docs/").text
    names = set(re.findall(r'href="(/docs/[^"#]+)"', index))
    assert len(names) > 40
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
    assert stranger.get("/docs/howto/../../README").status_code in (301, 308, 404)
    assert stranger.get("/docs/howto/nothing").status_code == 404
