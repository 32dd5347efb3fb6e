"""The reference page of the tools is generated from the tools."""

from pathlib import Path

from mcp_gateway.reference import render_page

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tools.md"


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert _PAGE.read_text(encoding="utf-8") == render_page(), "run `make docs`"
