"""Projects whose paths ignore case: one spelling of a surface, whatever case a client sends."""

from dataclasses import replace

import pytest

from bus.coordination import leases, long_poll
from bus.db import Connection
from bus.tenancy import participant_queries, projects
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.factories import Agent


@pytest.fixture
def bea(conn: Connection, project: Project) -> Agent:
    return factories.make_agent(conn, project, "bea")


def _set(conn: Connection, project: Project, value: bool) -> None:
    settings = replace(projects.get_settings(conn, project.id), case_insensitive_paths=value)
    assert projects.set_settings(conn, project.id, settings, actor=project.owner)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("README.md", "readme.md"),
        ("src/api", "SRC/Api/x.py"),
        ("src/**/*.PY", "SRC/a/b.py"),
        ("Src/[A-C]*.cs", "src/bx.CS"),
        ("Docs/[A-z]x.md", "docs/_x.md"),
        ("{Src,Lib}/A.cs", "lib/a.CS"),
        ("App/[Id]/p.ts", "app/[id]/P.ts"),
        ("Straße/Ä.md", "straße/ä.md"),
        ("İ/a", "İ/A"),
    ],
)
def test_overlap_ignores_case_only_where_the_project_says_so(
    conn: Connection, project: Project, ada: Agent, bea: Agent, held: str, wanted: str
) -> None:
    for first, second in ((held, wanted), (wanted, held)):
        leases.acquire(conn, ada.ctx, first)
        assert leases.acquire(conn, bea.ctx, second).others == []
        assert leases.release(conn, ada.ctx, "*").released == leases.release(conn, bea.ctx, "*").released == 1
    _set(conn, project, True)
    for first, second in ((held, wanted), (wanted, held)):
        leases.acquire(conn, ada.ctx, first)
        (other,) = leases.acquire(conn, bea.ctx, second).others
        assert other.actor == ada.actor
        assert len(leases.list_leases(conn, ada.ctx, surface=second).leases) == 2
        leases.release(conn, ada.ctx, "*")
        leases.release(conn, bea.ctx, "*")
    assert_ledger_consistent(conn, project.id)


def test_one_holder_has_one_lease_in_any_case(conn: Connection, project: Project, ada: Agent) -> None:
    _set(conn, project, True)
    lease = leases.acquire(conn, ada.ctx, "Src/A.py")
    assert (lease.surface, lease.renewed) == ("src/a.py", False)
    again = leases.acquire(conn, ada.ctx, "SRC/a.PY")
    assert (again.surface, again.renewed, again.fence) == ("src/a.py", True, lease.fence)
    assert leases.release(conn, ada.ctx, "sRC/A.py").released == 1
    assert list_event_types(conn, project.id)[-2:] == ["lease", "release"]


def test_a_wait_ends_when_the_surface_is_free_in_any_case(
    conn: Connection, project: Project, ada: Agent, bea: Agent
) -> None:
    _set(conn, project, True)
    leases.acquire(conn, ada.ctx, "README.md")
    request = long_poll.begin_wait(conn, bea.ctx, "lease", surface="ReadMe.md")
    assert request.surface == "readme.md"
    assert long_poll.poll(conn, request) is None
    leases.release(conn, ada.ctx, "readme.MD")
    assert long_poll.poll(conn, request) is not None


def test_leases_from_before_the_change_are_put_into_lower_case(
    conn: Connection, project: Project, ada: Agent, bea: Agent
) -> None:
    for surface in ("Src/A.py", "src/a.py", "Docs/**"):
        leases.acquire(conn, ada.ctx, surface)
    _set(conn, project, True)
    leases.fold_live_leases(conn, project.id)
    # The holder of both spellings keeps both.
    assert {held.surface for held in leases.list_leases(conn, bea.ctx).leases} == {"Src/A.py", "src/a.py", "docs/**"}
    assert [other.surface for other in leases.acquire(conn, bea.ctx, "SRC/A.py").others] == ["src/a.py"]
    assert [other.surface for other in leases.acquire(conn, bea.ctx, "DOCS/x.md").others] == ["docs/**"]
    assert_ledger_consistent(conn, project.id)


def test_whoami_has_the_setting(conn: Connection, project: Project, ada: Agent) -> None:
    assert not participant_queries.whoami(conn, ada.ctx).case_insensitive_paths
    _set(conn, project, True)
    assert participant_queries.whoami(conn, ada.ctx).case_insensitive_paths
