"""The README is short, and what it states is so."""

import re
from pathlib import Path

import pytest

from mcp_gateway.tools import all_tools
from scripts import badges, readme_tools

_ROOT = Path(__file__).resolve().parents[1]
_TEXT = (_ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_200_lines() -> None:
    assert len(_TEXT.splitlines()) <= 200


def test_its_table_of_tools_is_that_of_the_tools() -> None:
    assert readme_tools.insert_table(_TEXT) == _TEXT, "run `make docs`"
    assert all(f"[`{name}`]" in readme_tools.render_table() for name in all_tools())


@pytest.mark.parametrize("name", sorted(badges.read_facts()))
def test_a_badge_is_true(name: str) -> None:
    subject, fact = badges.read_facts()[name]
    drawn = (badges.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == badges.draw(subject, fact), "run `make docs`"
    separator = ": " if name == "badge-license" else " "
    assert f"![{subject}{separator}{fact}](docs/images/{name}.svg)" in _TEXT


def test_pictures_are_of_this_repository() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)|<(?:img|source)[^>]*?(?:src|srcset)=\"([^\"]+)\"", _TEXT)
    assert [path for pair in pictures for path in pair if path and not (_ROOT / path).is_file()] == []
