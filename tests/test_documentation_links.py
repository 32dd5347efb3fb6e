"""Links between the pages of the source: files and headings exist, and every page can be found from the README."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from webapp.markdown_pages import make_slug

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = [*sorted(_ROOT.glob("*.md")), *sorted((_ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@cache
def _text(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def _anchors(page: Path) -> set[str]:
    return {make_slug(title.replace("`", "")) for title in re.findall(r"^#+ (.*)$", _text(page), re.MULTILINE)}


def _links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the links of a page to files of the source: target and anchor."""
    for target in _LINK.findall(_text(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    broken = []
    for path, anchor in _links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert broken == []


@pytest.mark.parametrize("folder", ["tutorials", "howto", "reference", "explanation"])
def test_the_readme_links_every_page(folder: str) -> None:
    linked = {(_ROOT / path).resolve() for path, _ in _links(_ROOT / "README.md") if path}
    pages = {page for page in _PAGES if page.parent == _ROOT / "docs" / folder}
    assert pages
    assert sorted(page.name for page in pages - linked) == []


def test_the_list_of_decisions_names_each() -> None:
    folder = _ROOT / "docs" / "decisions"
    listed = {path for path, _ in _links(folder / "README.md")}
    assert {page.name for page in folder.glob("[0-9]*.md")} <= listed
