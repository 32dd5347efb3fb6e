"""The matrix of clients, and the committed page that holds it."""

import json
import re

import pytest

from tests.clients import checks
from tests.clients.drivers import DRIVERS
from tests.clients.install import LOCK_FOLDER
from tests.clients.matrix import NO, PAGE, SECONDS_ROW, Cell, Matrix, parse_matrix, read_page, update_page


def make_matrix(**changes: Cell) -> Matrix:
    cells = {"greeting": Cell("yes"), "bytes": Cell("1.9 KB + 2.2 KB"), "seconds": Cell("3.0"), **changes}
    matrix = Matrix(["Codex"])
    matrix.set("Greeting", "Codex", cells["greeting"])
    matrix.set("Added", "Codex", cells["bytes"])
    matrix.set(SECONDS_ROW, "Codex", cells["seconds"])
    return matrix


def test_the_page_has_the_form_that_the_program_prints() -> None:
    text = PAGE.read_text("utf-8")
    assert update_page(text, read_page(text)) == text


def test_the_page_has_every_check_of_every_client_and_a_reason_for_each_no() -> None:
    page = read_page(PAGE.read_text("utf-8"))
    assert page.clients == [driver.title for driver in DRIVERS]
    assert list(page.rows) == [check.row for check in checks.CHECKS]
    for row, cells in page.rows.items():
        assert list(cells) == page.clients, row
        assert [client for client, cell in cells.items() if cell.value == NO and cell.note is None] == [], row


def test_the_page_names_the_versions_that_are_installed() -> None:
    package = json.loads((LOCK_FOLDER / "package.json").read_text("utf-8"))
    requirements = {**package["dependencies"], **package["optionalDependencies"]}
    versions = {
        driver.title: {
            match[0]
            for name, requirement in requirements.items()
            if name.startswith(driver.npm_package) and (match := re.search(r"\d+\.\d+\.\d+", requirement))
        }
        for driver in DRIVERS
    }
    page = read_page(PAGE.read_text("utf-8"))
    assert versions == {client: {cell.value} for client, cell in page.rows["Version"].items()}


def test_the_lock_has_a_checksum_for_every_package_and_names_no_registry() -> None:
    text = (LOCK_FOLDER / "package-lock.json").read_text("utf-8")
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if not package["integrity"].startswith("sha512-")] == []
    assert "://" not in text


def test_a_matrix_survives_its_own_format() -> None:
    matrix = make_matrix(greeting=Cell("no", "It has no hooks (yet)."))
    assert parse_matrix(matrix.format()) == matrix


@pytest.mark.parametrize(
    ("changes", "is_reported"),
    [
        ({}, False),
        ({"seconds": Cell("9.9")}, False),
        ({"bytes": Cell("2.0 KB + 2.1 KB")}, False),
        ({"bytes": Cell("2.9 KB + 2.2 KB")}, True),
        ({"bytes": Cell("the same")}, True),
        ({"greeting": Cell("no", "It has no hooks.")}, True),
    ],
)
def test_what_differs_from_the_page_is_reported(changes: dict[str, Cell], is_reported: bool) -> None:
    assert bool(make_matrix(**changes).find_differences(make_matrix())) is is_reported


@pytest.mark.parametrize(
    ("here", "there", "is_loss"),
    [
        (Cell("no", "It has no hooks."), Cell("yes"), True),
        (Cell("no", "It has no hooks."), Cell("after a search", "It searches."), True),
        (Cell("no", "It has no hooks."), Cell("no", "Another reason."), False),
        (Cell("yes"), Cell("no", "It has no hooks."), False),
    ],
)
def test_what_the_page_promises_and_the_run_denies_is_a_loss(here: Cell, there: Cell, is_loss: bool) -> None:
    losses = make_matrix(greeting=here).find_losses(make_matrix(greeting=there))
    assert losses == (["Codex: Greeting"] if is_loss else [])


def test_a_no_without_a_reason_is_a_failure() -> None:
    cells = {"a": Cell("yes"), "b": Cell("no", "It has no hooks."), "c": Cell("no")}
    assert checks.find_unexplained(cells) == ["c"]
