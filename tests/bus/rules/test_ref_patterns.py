"""Patterns of references: what is accepted, what they match, and that none backtracks."""

import subprocess
import sys

import pytest

from bus.errors import InvalidArgument
from bus.rules import ref_patterns
from bus.rules.ref_patterns import MAX_MATCHES, RefFinder, RefPattern
from tests.concurrency import stretched

_PULLS = RefPattern(r"PR[- #](\d+)", "https://github.com/acme/shop/pull/$1")
_FILES = RefPattern(r"(?i:file) (\S+)", "https://example.org/browse/$1?from=$0")


@pytest.mark.parametrize("pattern", [_PULLS, _FILES])
def test_a_pattern_with_its_address_is_accepted(pattern: RefPattern) -> None:
    assert ref_patterns.validate(pattern.pattern, pattern.address) == pattern


@pytest.mark.parametrize(
    ("pattern", "address", "message"),
    [
        ("(", "https://example.org/", "pattern is not valid in RE2"),
        ("(?=x)y", "https://example.org/", "pattern is not valid in RE2"),
        (r"(a)\1", "https://example.org/", "pattern is not valid in RE2"),
        ("((a{1,100}){1,100}){1,100}", "https://example.org/", "pattern is not valid in RE2"),
        (r"(?s).*?.{500}b|a", "https://example.org/", "too large"),
        (r"(?i)\pL{2,10}-\d+", "https://example.org/", "too large"),
        ("x" * 201, "https://example.org/", "pattern"),
        ("a*", "https://example.org/", "matches an empty text"),
        ("(a)" * 10, "https://example.org/", "at most 9"),
        ("", "https://example.org/", "pattern"),
        ("a", "javascript:alert(1)", "address must begin with https://"),
        ("a", "//example.org/", "address must begin with https://"),
        ("a", "https://$1.example.org/", "address must begin with https://"),
        ("a", "https://[::1/", "address must begin with https://"),
        ("a", "https://example.org/a b", "address must begin with https://"),
        ("a", "https://example.org/$1", "address has $1, but the pattern has 0 groups"),
    ],
)
def test_a_wrong_pattern_or_address_is_refused_with_its_reason(pattern: str, address: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        ref_patterns.validate(pattern, address)
    assert message in refusal.value.message


@pytest.mark.parametrize(
    ("ref", "address"),
    [
        ("PR-142", "https://github.com/acme/shop/pull/142"),
        ("PR 7", "https://github.com/acme/shop/pull/7"),
        ("see PR-142", None),
        ("file a&b/é.py", "https://example.org/browse/a%26b/%C3%A9.py?from=file%20a%26b/%C3%A9.py"),
        ("https://example.org/x", "https://example.org/x"),
        ("https://example.org/x and more", None),
        ("javascript:alert(1)", None),
    ],
)
def test_a_reference_resolves_to_its_address(ref: str, address: str | None) -> None:
    assert ref_patterns.resolve([_PULLS, _FILES], ref) == address


def test_references_in_a_text_are_whole_words() -> None:
    text = "é PR-1, XPR-2, PR-3a and (PR-4)"
    matches = [text[match.start : match.end] for match in RefFinder([_PULLS]).find_all(text)]
    assert matches == ["PR-1", "PR-4"]


_READING = """
import sys
from bus.rules import ref_patterns
from bus.rules.ref_patterns import RefFinder, RefPattern
pattern, text = RefPattern(sys.argv[1], "https://example.org/"), "a" * 8000
assert list(RefFinder([pattern]).find_all(text)) == []
assert ref_patterns.resolve([pattern], text) is None
"""


@pytest.mark.parametrize("pattern", [r"(a|a)*$b", r"(a+)+b", r"(\w+\s?)+!", r"a.*a.*a.*a.*a.*b"])
def test_a_pattern_that_backtracks_elsewhere_reads_a_text_once(pattern: str) -> None:
    # In a process of its own: a search that backtracks takes centuries, and no time limit of a test ends it.
    subprocess.run([sys.executable, "-c", _READING, pattern], check=True, timeout=stretched(20))


@pytest.mark.parametrize("pattern", [r"PR-\d+", r"\pL+-\d+", r"(?i)[A-Z]{2,10}-\d{1,6}", r"[\p{L}\p{N}]+#\d+"])
def test_usual_patterns_are_small_enough(pattern: str) -> None:
    ref_patterns.validate(pattern, "https://example.org/")


def test_a_long_line_is_read_in_parts_between_words() -> None:
    text = " ".join(f"PR-{number}" for number in range(100, 280)) + " " + "x" * 2_500 + " PR-9"
    matches = list(RefFinder([_PULLS]).find_all(text))
    assert [text[match.start : match.end] for match in matches] == [f"PR-{number}" for number in [*range(100, 280), 9]]


def test_the_matches_of_a_text_are_limited_over_all_patterns_and_parts() -> None:
    finder = RefFinder([_PULLS, RefPattern("PR", "https://example.org/")])
    texts = ["PR-1 " * 150, "PR-2 " * 300]
    assert sum(len(list(finder.find_all(text))) for text in texts) <= MAX_MATCHES
    assert list(finder.find_all("PR-1")) == []


@pytest.mark.parametrize("ref", ["file ../../evil", "file a/../b", "file .."])
def test_a_reference_does_not_leave_the_path_of_its_address(ref: str) -> None:
    assert ref_patterns.resolve([_FILES], ref) is None
    assert list(RefFinder([_FILES]).find_all(ref)) == []
    assert ref_patterns.resolve([_FILES], "file a..b/.c") is not None
