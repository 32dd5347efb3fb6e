"""Each page leads to the part of the documentation that explains it."""

import re

import pytest

from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser, WebApp
from webapp.help_pages import HELP_PAGES


@pytest.mark.parametrize("target", sorted(set(HELP_PAGES.values()), key=str), ids=str)
def test_the_part_of_the_documentation_exists(stranger: Browser, target: tuple[str, str | None]) -> None:
    name, anchor = target
    page = stranger.get(f"/docs/{name}")
    assert page.status_code == 200
    assert anchor is None or f'id="{anchor}"' in page.text


def test_every_page_with_help_is_a_page(site: WebApp) -> None:
    assert HELP_PAGES.keys() <= site.app.blueprints.keys()


def test_a_page_links_its_help_in_the_menu_and_in_the_footer(ada: Browser, sample: SampleData) -> None:
    page = ada.get(project_path(sample, "board/")).text
    assert re.findall(r'href="(/docs/[^"]+)"[^>]*>(?:<svg.*?</svg>)?Help for this page', page) == [
        "/docs/howto/admin#live-board",
        "/docs/howto/admin#live-board",
    ]
