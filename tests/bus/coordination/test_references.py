"""What the texts of a project can link to."""

import pytest

from bus.coordination import posts, references, sequences, tasks
from bus.coordination.references import LinkTargets, SequencePrefix
from bus.db import Connection
from bus.tenancy import ref_patterns
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent


def test_link_targets_are_those_of_the_project(conn: Connection, project: Project, ada: Agent) -> None:
    other = make_agent(conn)
    sequences.seed(conn, ada.ctx, "adr", 48, prefix="ADR-", pad=4)
    sequences.claim(conn, ada.ctx, "adr")
    sequences.claim(conn, ada.ctx, "plain")
    tasks.create(conn, ada.ctx, "One")
    ref_patterns.add_pattern(conn, project.id, r"PR-(\d+)", "https://example.org/$1", actor="web")

    targets = references.get_link_targets(conn, project.id)

    assert [prefix.sequence for prefix in targets.prefixes] == ["adr"]
    assert (targets.last_event, targets.last_task) == (4, 1)
    assert targets.find_number("ADR-49") == targets.find_number("ADR-0049") == ("adr", 49)
    for text in ("ADR-50", "ADR-0", "adr-49", "49", "ADR-", "ADR-49x", "1" * 40, "\nADR-49"):
        assert targets.find_number(text) is None, text
    assert targets.find_address("PR-7") == "https://example.org/7"
    assert references.get_link_targets(conn, other.ctx.project_id) == references.LinkTargets()
    assert references.get_link_targets(conn, 2**40) == references.LinkTargets()


def test_recent_references_are_counted_newest_first(conn: Connection, project: Project, ada: Agent) -> None:
    for ref in ("PR-1", "PR-2", None, "PR-1", "PR-3"):
        posts.create(conn, ada.ctx, "x", to_lane="core", ref=ref)
    recent = references.list_recent_refs(conn, project.id)
    assert [(item.ref, item.post_count) for item in recent] == [("PR-3", 1), ("PR-1", 2), ("PR-2", 1)]


def test_a_reference_with_a_slash_can_be_a_path() -> None:
    assert references.is_path("src/api/a.py")
    for text in ("PR-1", "https://example.org/a", "read and/or write it", "a/" * 200):
        assert not references.is_path(text), text


@pytest.mark.timeout(5)
def test_a_number_is_found_at_the_end_of_a_text_of_any_length() -> None:
    targets = LinkTargets(prefixes=(SequencePrefix("adr", "ADR-", 60),))
    # This took a time that grew with the square of the length: about ten seconds.
    assert targets.find_number("0" * 10_000 + "x") is None
    assert targets.find_number("ADR-" + "9" * 10_000) is None
    assert targets.find_number("ADR-" + "0" * 10_000 + "7") == ("adr", 7)
