"""Something else stands where a file belongs: a folder, a link, a device. It is named, and nothing outside changes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import exit_codes
from tests.kit.workplace import URL, Workplace


def _folder(place: Workplace, path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def _file_in_place_of_a_folder(place: Workplace, path: Path) -> None:
    path.parent.write_text("a file\n")


def _fifo(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)


def _link_out(place: Workplace, path: Path) -> None:
    outside = place.home / "shared.json"
    outside.write_text("{}")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)


def _link_to_nothing_outside(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("../../not-there.json")


def _link_into_git(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("../.git/config")


def _folder_link_out(place: Workplace, path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.symlink_to(place.home)


def _folder_link_into_git(place: Workplace, path: Path) -> None:
    path.parent.symlink_to(".git/hooks")


def _link_to_itself(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(path.name)


def _device(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/dev/null")


def _read_only(place: Workplace, path: Path) -> None:
    place.write(path.relative_to(place.top).as_posix(), "{}\n", 0o444)


def _hard_link(place: Workplace, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    (place.home / "other").write_text("{}\n")
    path.hardlink_to(place.home / "other")


OBSTACLES = (
    _folder,
    _file_in_place_of_a_folder,
    _fifo,
    _link_out,
    _link_to_nothing_outside,
    _link_into_git,
    _folder_link_out,
    _folder_link_into_git,
    _link_to_itself,
    _device,
    _read_only,
    _hard_link,
)


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: obstacle.__name__)
def test_an_obstacle_is_named_and_nothing_outside_changes(
    place: Workplace, obstacle: Callable[[Workplace, Path], None]
) -> None:
    obstacle(place, place.top / ".cursor" / "mcp.json")
    before = place.listing()
    home = {path.name: path.read_bytes() for path in place.home.iterdir()}
    config = place.read(".git/config")
    code, output = place.install("cursor,claude")
    assert code == exit_codes.PARTLY, output
    assert "! .cursor/mcp.json: " in output
    assert (place.top / ".mcp.json").is_file()
    assert (place.top / "CLAUDE.md").is_file()
    assert (place.top / ".git/hooks/pre-commit").is_file()
    assert {path.name: path.read_bytes() for path in place.home.iterdir()} == home
    assert place.read(".git/config") == config
    code, output = place.uninstall()
    assert code == exit_codes.OK, output
    assert place.listing() == before


@pytest.mark.parametrize("link", ["file", "folder", "dangling file", "dangling folder", "chain"])
def test_links_inside_the_work_tree_stay_and_what_is_behind_them_is_restored(place: Workplace, link: str) -> None:
    folder = place.top / ".cursor"
    if link == "file":
        place.write("conf/mcp.json", '{"a": 1}\n')
        folder.mkdir()
        (folder / "mcp.json").symlink_to("../conf/mcp.json")
    elif link == "folder":
        place.write("conf/mcp.json", '{"a": 1}\n')
        folder.symlink_to("conf")
    elif link == "dangling file":
        folder.mkdir()
        (folder / "mcp.json").symlink_to("../conf/deep/mcp.json")
    elif link == "dangling folder":
        folder.symlink_to("conf/deep")
    else:
        place.write("conf/mcp.json", '{"a": 1}\n')
        (place.top / "conf/second.json").symlink_to("mcp.json")
        folder.mkdir()
        (folder / "mcp.json").symlink_to("../conf/second.json")
    before = place.listing()
    assert place.install("cursor")[0] == exit_codes.OK
    assert URL in (folder / "mcp.json").read_text()
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before
    assert not (place.top / "conf" / "deep").exists()
    if link.startswith("dangling"):
        assert not (place.top / "conf").exists()


def test_one_file_behind_two_names_gets_one_block(place: Workplace) -> None:
    place.write("AGENTS.md", "mine\n")
    (place.top / "CLAUDE.md").symlink_to("AGENTS.md")
    before = place.listing()
    place.install("claude,codex")
    assert place.read("AGENTS.md").count(b"llm-bus:begin") == 1
    place.uninstall()
    assert place.listing() == before
