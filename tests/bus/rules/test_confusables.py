"""Names that look alike have the same skeleton."""

import pytest

from bus.rules.confusables import skeleton


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("api-agent", "\u0430pi-agent"),  # Cyrillic a
        ("scope", "\u0455\u0441\u043e\u0440\u0435"),  # all Cyrillic
        ("root", "r\u03bf\u03bft"),  # Greek omicron
        ("alice", "AIice"),  # capital I
        ("Ian", "lan"),
        ("worker-1", "worker-l"),
        ("worker-0", "worker-O"),
        ("modem", "modern"),
        ("ada", "\uff41da"),  # full width
        ("ada", "a\u0501a"),  # Komi de
    ],
)
def test_names_that_look_alike_have_one_skeleton(name: str, other: str) -> None:
    assert skeleton(name) == skeleton(other)


@pytest.mark.parametrize(
    ("name", "other"), [("alice", "bob"), ("api-1", "api-2"), ("ada", "ado"), ("jürgen", "jurgen"), ("日本", "日木")]
)
def test_other_names_differ(name: str, other: str) -> None:
    assert skeleton(name) != skeleton(other)


@pytest.mark.parametrize("name", ["ada", "\u0430pi", "AIice", "modern", "日本", "x" * 64])
def test_a_skeleton_is_stable(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)
