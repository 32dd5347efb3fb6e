"""The patterns of references of a project: added, removed, audited, bounded."""

import pytest

from bus.db import Connection
from bus.errors import BusError
from bus.operations import project_purge
from bus.rules.ref_patterns import MAX_PATTERNS, RefPattern
from bus.tenancy import ref_patterns
from bus.tenancy.projects import Project
from tests.factories import make_project

_ADDRESS = "https://example.org/$1"


def test_patterns_of_a_project_are_kept_in_their_order(conn: Connection, project: Project) -> None:
    other = make_project(conn)
    for pattern in (r"PR-(\d+)", r"CVE-(\d+-\d+)"):
        ref_patterns.add_pattern(conn, project.id, pattern, _ADDRESS, actor="web")
    assert ref_patterns.list_patterns(conn, project.id) == [
        RefPattern(r"PR-(\d+)", _ADDRESS),
        RefPattern(r"CVE-(\d+-\d+)", _ADDRESS),
    ]
    assert ref_patterns.list_patterns(conn, other.id) == []
    assert ref_patterns.remove_pattern(conn, project.id, r"PR-(\d+)", actor="web")
    assert not ref_patterns.remove_pattern(conn, project.id, r"PR-(\d+)", actor="web")
    assert [known.pattern for known in ref_patterns.list_patterns(conn, project.id)] == [r"CVE-(\d+-\d+)"]


def test_a_pattern_is_added_once_and_the_number_is_limited(conn: Connection, project: Project) -> None:
    for number in range(MAX_PATTERNS):
        ref_patterns.add_pattern(conn, project.id, f"P{number}-([0-9]+)", _ADDRESS, actor="web")
    for pattern in ("P0-([0-9]+)", "Q-([0-9]+)"):
        with pytest.raises(BusError) as refusal:
            ref_patterns.add_pattern(conn, project.id, pattern, _ADDRESS, actor="web")
        assert refusal.value.code == "conflict"


def test_a_project_that_is_being_deleted_has_no_patterns(conn: Connection, project: Project) -> None:
    assert project_purge.begin_purge(conn, project.id, actor="web", reason="test")
    for act in (
        lambda: ref_patterns.list_patterns(conn, project.id),
        lambda: ref_patterns.add_pattern(conn, project.id, "a(b)", _ADDRESS, actor="web"),
        lambda: ref_patterns.remove_pattern(conn, project.id, "a(b)", actor="web"),
    ):
        with pytest.raises(BusError) as refusal:
            act()
        assert refusal.value.code == "not_found"
