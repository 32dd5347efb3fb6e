"""Cells of an exported file that a spreadsheet would evaluate."""

from typing import Any

import pytest

from webapp.csv_export import escape_formula


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_a_spreadsheet_would_evaluate_gets_an_apostrophe(first: str) -> None:
    assert escape_formula(f"{first}1+1") == f"'{first}1+1"


@pytest.mark.parametrize("value", ["a=1", " =1", "", "'=1", -1, None, 1.5])
def test_other_values_are_exported_as_they_are(value: Any) -> None:
    assert escape_formula(value) == value
