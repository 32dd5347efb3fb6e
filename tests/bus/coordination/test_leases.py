"""Leases: reported contention, renewal without an event, release and expiry."""

from datetime import timedelta

import pytest

from bus import limits
from bus.coordination import leases, posts
from bus.db import Connection
from bus.rules.surfaces import overlaps
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum, list_event_types, list_events
from tests.factories import Agent


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def _expire(conn: Connection, fence: int, project_id: int) -> None:
    """Expire a lease without waiting."""
    conn.execute(
        "UPDATE lease SET expires_at = clock_timestamp() - interval '1 millisecond'"
        " WHERE project_id = %s AND fence = %s RETURNING id",
        (project_id, fence),
    )


def _live(conn: Connection, agent: Agent) -> list[str]:
    return [held.surface for held in leases.list_leases(conn, agent.ctx).leases]


def test_a_lease_is_recorded_with_its_fence(conn: Connection, ada: Agent) -> None:
    lease = leases.acquire(conn, ada.ctx, "./src//api/", ttl=_seconds(90), note="routes")
    assert (lease.surface, lease.fence, lease.lease_id, lease.renewed, lease.others) == (
        "src/api",
        1,
        1,
        False,
        [],
    )
    assert list_events(conn, ada.ctx.project_id) == [
        (
            1,
            "lease",
            {"surface": "src/api", "ttl_seconds": 90, "mode": "exclusive", "fence": 1, "contended": 0},
        )
    ]
    (held,) = leases.list_leases(conn, ada.ctx).leases
    assert (held.surface, held.actor, held.note, held.mode, held.fence) == (
        "src/api", ada.actor, "routes", "exclusive", 1,
    )  # fmt: skip
    assert held.expires_at == lease.expires_at
    assert 88 <= held.expires_in_seconds <= 90


def test_a_lease_lasts_half_an_hour_by_default(conn: Connection, ada: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src")
    (held,) = leases.list_leases(conn, ada.ctx).leases
    assert 1798 <= held.expires_in_seconds <= 1800


@pytest.mark.parametrize("seconds", [1, 86_400])
def test_the_shortest_and_the_longest_ttl_are_accepted(conn: Connection, ada: Agent, seconds: int) -> None:
    leases.acquire(conn, ada.ctx, "src", ttl=_seconds(seconds))
    (held,) = leases.list_leases(conn, ada.ctx).leases
    assert seconds - 1 <= held.expires_in_seconds <= seconds


def test_an_overlapping_lease_is_granted_and_names_the_others(
    conn: Connection, ada: Agent, bob: Agent, root: Agent
) -> None:
    first = leases.acquire(conn, ada.ctx, "src/api/routes.py", ttl=_seconds(60), note="mine")
    second = leases.acquire(conn, bob.ctx, "src/api", ttl=_seconds(120))
    leases.acquire(conn, bob.ctx, "docs")
    third = leases.acquire(conn, root.ctx, "src/**/*.py")
    assert first.others == []
    (other,) = second.others
    assert (other.actor, other.surface, other.note) == (ada.actor, "src/api/routes.py", "mine")
    assert other.expires_at == first.expires_at
    assert 58 <= other.expires_in_seconds <= 60
    assert [(one.actor, one.surface) for one in third.others] == [
        (ada.actor, "src/api/routes.py"),
        (bob.actor, "src/api"),
    ]
    assert [payload["contended"] for _, _, payload in list_events(conn, ada.ctx.project_id)] == [0, 1, 0, 2]
    assert len(_live(conn, ada)) == 4


@pytest.mark.parametrize(
    ("held", "wanted", "overlap"),
    [
        ("src/a.py", "src/a.py", True),
        ("src/a.py", "src/b.py", False),
        ("src", "src/a.py", True),
        ("src/a.py", "src", True),
        ("src", "srcs", False),
        ("src/a", "src/a.py", False),
        ("src/a.py", "src/a", False),
        ("src/a-b/x", "src/a", False),
        ("src/a0", "src/a", False),
        ("src/**/*.py", "src/api", True),
        ("src/api", "src/**/*.py", True),
        ("src/*.py", "src/*.md", False),
        ("src/*.py", "src/x*", True),
        ("**/*.py", "docs/conf.py", True),
        ("**/*.py", "docs/*.md", False),
        (".", "anything/at/all", True),
        ("{src,docs}/a", "docs/a/b", True),
        ("{src,docs}/a", "lib/a", False),
        ("app/[id]/page.tsx", "app/[id]/page.tsx", True),
        ("a/b/c", "a", True),
        ("a", "a/b/c/d/e", True),
        ("A/b", "a/b", False),
        ("src", "src/zone.py", True),
        ("src", "src/~draft", True),
        ("src", "src/été/x", True),
    ],
)
def test_overlap_is_symmetric_and_the_same_in_who_holds(
    conn: Connection, ada: Agent, bob: Agent, held: str, wanted: str, overlap: bool
) -> None:
    for first, second in ((held, wanted), (wanted, held)):
        with conn.raw.transaction(force_rollback=True):
            leases.acquire(conn, ada.ctx, first)
            assert len(leases.list_leases(conn, bob.ctx, surface=second).leases) == int(overlap)
            assert len(leases.acquire(conn, bob.ctx, second).others) == int(overlap)


def test_leases_of_one_participant_do_not_contend(conn: Connection, ada: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src")
    assert leases.acquire(conn, ada.ctx, "src/a.py").others == []


@pytest.mark.parametrize(
    ("first", "second", "contends"),
    [
        ("shared", "shared", False),
        ("shared", "exclusive", True),
        ("exclusive", "shared", True),
        ("exclusive", "exclusive", True),
    ],
)
@pytest.mark.parametrize("surfaces", [("src", "src/a.py"), ("src/*.py", "src/a.py")])
def test_shared_leases_contend_only_with_exclusive_ones(
    conn: Connection,
    ada: Agent,
    bob: Agent,
    first: str,
    second: str,
    contends: bool,
    surfaces: tuple[str, str],
) -> None:
    leases.acquire(conn, ada.ctx, surfaces[0], mode=first)
    assert len(leases.acquire(conn, bob.ctx, surfaces[1], mode=second).others) == int(contends)
    assert {held.mode for held in leases.list_leases(conn, ada.ctx).leases} == {first, second}


def test_at_most_twenty_others_are_named_and_all_are_counted(conn: Connection, ada: Agent, project: Project) -> None:
    names = [factories.make_agent(conn, project) for _ in range(23)]
    for number, agent in enumerate(names):
        leases.acquire(conn, agent.ctx, f"src/{number}.py" if number % 2 else f"src/{number}*")
    lease = leases.acquire(conn, ada.ctx, "src")
    assert [other.actor for other in lease.others] == [agent.actor for agent in names[:20]]
    assert list_events(conn, project.id)[-1][2]["contended"] == 23


def test_renewing_keeps_the_fence_and_adds_no_event(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = leases.acquire(conn, ada.ctx, "src", ttl=_seconds(60), note="first")
    leases.acquire(conn, bob.ctx, "src/a.py")
    again = leases.acquire(conn, ada.ctx, "src/", ttl=_seconds(600))
    assert (again.renewed, again.fence, again.lease_id) == (True, first.fence, first.lease_id)
    assert again.expires_at > first.expires_at
    # A renewal names leases that were acquired in the meantime.
    assert [other.actor for other in again.others] == [bob.actor]
    assert list_event_types(conn, ada.ctx.project_id) == ["lease", "lease"]
    held = leases.list_leases(conn, ada.ctx).leases[-1]
    assert (held.note, held.expires_at, held.fence) == ("first", again.expires_at, first.fence)
    shorter = leases.acquire(conn, ada.ctx, "src", ttl=_seconds(5), note="second")
    held = leases.list_leases(conn, ada.ctx).leases[-1]
    assert (held.note, held.expires_at) == ("second", shorter.expires_at)
    assert len(_live(conn, ada)) == 2


def test_a_change_of_mode_is_a_new_lease(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = leases.acquire(conn, ada.ctx, "src", mode="shared")
    second = leases.acquire(conn, bob.ctx, "src", mode="shared")
    assert second.others == []
    third = leases.acquire(conn, ada.ctx, "src", mode="exclusive")
    assert (third.renewed, third.fence > second.fence > first.fence) == (False, True)
    assert [other.actor for other in third.others] == [bob.actor]
    assert list_event_types(conn, ada.ctx.project_id) == ["lease", "lease", "release", "lease"]
    assert [(held.actor, held.mode) for held in leases.list_leases(conn, bob.ctx).leases] == [
        (ada.actor, "exclusive"),
        (bob.actor, "shared"),
    ]


@pytest.mark.parametrize("wanted", ["src/api", "src/api/a.py", "src", "src/**/*.py", "**/*.py"])
def test_an_expired_lease_is_gone_at_once(conn: Connection, ada: Agent, bob: Agent, wanted: str) -> None:
    lease = leases.acquire(conn, ada.ctx, "src/api")
    assert len(leases.list_leases(conn, bob.ctx, surface=wanted).leases) == 1
    _expire(conn, lease.fence, ada.ctx.project_id)
    assert _live(conn, ada) == []
    assert leases.list_leases(conn, bob.ctx, surface=wanted).leases == []
    assert leases.acquire(conn, bob.ctx, wanted).others == []
    assert leases.release(conn, ada.ctx, "src/api").released == 0
    assert leases.release(conn, ada.ctx, "*").released == 0
    assert list_event_types(conn, ada.ctx.project_id) == ["lease", "lease"]


def test_leasing_an_expired_surface_again_is_a_new_lease_and_records_the_expiry(conn: Connection, ada: Agent) -> None:
    old = leases.acquire(conn, ada.ctx, "src", note="old")
    _expire(conn, old.fence, ada.ctx.project_id)
    new = leases.acquire(conn, ada.ctx, "src")
    assert (new.renewed, new.fence) == (False, 3)
    assert list_events(conn, ada.ctx.project_id)[1:] == [
        (2, "lease_expire", {"surface": "src", "fence": old.fence}),
        (
            3,
            "lease",
            {"surface": "src", "ttl_seconds": 1800, "mode": "exclusive", "fence": 3, "contended": 0},
        ),
    ]
    ended = conn.fetch_one(
        "SELECT ended_by, ended_at = expires_at FROM lease WHERE project_id = %s AND fence = %s",
        (ada.ctx.project_id, old.fence),
    )
    assert ended == ("expiry", True)
    (held,) = leases.list_leases(conn, ada.ctx).leases
    assert (held.fence, held.note) == (3, None)
    assert leases.acquire(conn, ada.ctx, "src").renewed
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 3


def test_the_fence_rises_with_every_lease(conn: Connection, ada: Agent, bob: Agent) -> None:
    fences = [leases.acquire(conn, agent.ctx, f"src/{number}").fence for number in range(5) for agent in (ada, bob)]
    assert fences == sorted(set(fences))


def test_a_release_ends_the_lease_and_repeating_it_adds_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py")
    leases.acquire(conn, ada.ctx, "src/b.py")
    leases.acquire(conn, bob.ctx, "src/a.py")
    assert leases.release(conn, ada.ctx, "./src//a.py").released == 1
    assert [(held.surface, held.actor) for held in leases.list_leases(conn, ada.ctx).leases] == [
        ("src/a.py", bob.actor),
        ("src/b.py", ada.actor),
    ]
    assert list_events(conn, ada.ctx.project_id)[-1][1:] == ("release", {"surface": "src/a.py"})
    before = database_checksum(conn)
    assert leases.release(conn, ada.ctx, "src/a.py").released == 0
    assert leases.release(conn, ada.ctx, "src").released == 0
    assert leases.release(conn, ada.ctx, "src/*").released == 0
    assert database_checksum(conn) == before


def test_a_star_releases_all_leases_of_the_caller_with_one_event_each(conn: Connection, ada: Agent, bob: Agent) -> None:
    for surface in ("a", "b/*", "c"):
        leases.acquire(conn, ada.ctx, surface)
    leases.acquire(conn, bob.ctx, "a")
    assert leases.release(conn, ada.ctx, "*").released == 3
    assert _live(conn, ada) == ["a"]
    assert [payload for _, kind, payload in list_events(conn, ada.ctx.project_id) if kind == "release"] == [
        {"surface": "a"},
        {"surface": "b/*"},
        {"surface": "c"},
    ]
    before = database_checksum(conn)
    assert leases.release(conn, ada.ctx, "*").released == 0
    assert database_checksum(conn) == before
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 7


def test_leasing_after_a_release_is_a_new_lease(conn: Connection, ada: Agent) -> None:
    first = leases.acquire(conn, ada.ctx, "src")
    leases.release(conn, ada.ctx, "src")
    second = leases.acquire(conn, ada.ctx, "src")
    assert (second.renewed, second.fence > first.fence) == (False, True)


@pytest.mark.parametrize(
    "surface",
    ["", " ", "..", "src/../..", "/etc", "~/x", "C:/x", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 201, "{a"],
)
def test_a_surface_outside_the_repository_or_malformed_is_refused(conn: Connection, ada: Agent, surface: str) -> None:
    before = database_checksum(conn)
    for call in (
        lambda: leases.acquire(conn, ada.ctx, surface),
        lambda: leases.release(conn, ada.ctx, surface),
        lambda: leases.list_leases(conn, ada.ctx, surface=surface),
    ):
        with assert_refused(conn, "invalid_argument"):
            call()
    assert database_checksum(conn) == before


def test_who_holds_pages_over_more_than_two_hundred_leases(conn: Connection, ada: Agent, bob: Agent) -> None:
    conn.raw.execute(
        "INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, fence, acquired_at,"
        " expires_at) SELECT %s, n, s, s, 'exclusive', %s, 'x', n, now(), now() + interval '1 hour'"
        " FROM (SELECT n, (ARRAY['src/', 'docs/', 'src'])[n %% 3 + 1] || n AS s FROM generate_series(1, 901) AS n) t",
        (ada.ctx.project_id, ada.ctx.participation_id),
    )
    held = {n: f"{('src/', 'docs/', 'src')[n % 3]}{n}" for n in range(1, 902)}
    expected: dict[str | None, set[int]] = {
        surface: {n for n, other in held.items() if overlaps(surface, other)}
        for surface in ("src", "src/*", "docs/*7", "src/9000", "{src/3,docs/*1}", "src2", "{src,docs}/*")
    }
    assert [len(fences) for fences in expected.values()] == [300, 300, 30, 0, 32, 1, 601]
    expected[None] = set(held)
    for surface, fences in expected.items():
        for limit in (7, 200):
            seen: list[int] = []
            before = None
            while True:
                page = leases.list_leases(conn, bob.ctx, surface=surface, before=before, limit=limit)
                assert len(page.leases) <= limit
                seen += [held.fence for held in page.leases]
                before = page.next_before
                if before is None:
                    break
                assert len(page.leases) == limit
            assert seen == sorted(fences, reverse=True), (surface, limit)


def test_lease_results_have_the_unread_count(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert leases.list_leases(conn, bob.ctx).unread == 1
    assert leases.list_leases(conn, bob.ctx, surface="none").unread == 1
    assert leases.acquire(conn, bob.ctx, "src").unread == 1
    assert leases.acquire(conn, bob.ctx, "src").unread == 1
    assert leases.release(conn, bob.ctx, "src").unread == 1


def test_a_page_ends_early_at_its_bytes(conn: Connection, ada: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        leases.acquire(conn, ada.ctx, f"src/{number}.py", note="n" * 100)
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 250)
    surfaces_seen: list[str] = []
    before = None
    for _ in range(5):
        page = leases.list_leases(conn, ada.ctx, before=before)
        assert len(page.leases) <= 2
        surfaces_seen += [lease.surface for lease in page.leases]
        before = page.next_before
        if before is None:
            break
    assert surfaces_seen == [f"src/{number}.py" for number in range(4, -1, -1)]
