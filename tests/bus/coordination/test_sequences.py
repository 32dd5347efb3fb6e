"""Claims and seeds: gap-free numbers that never go back."""

import pytest

from bus import limits
from bus.coordination import sequences
from bus.db import Connection
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum, list_events
from tests.factories import Agent


def test_claims_of_a_sequence_start_at_one_without_gaps(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = sequences.claim(conn, ada.ctx, "adr", note="leases")
    assert (first.sequence, first.number, first.formatted, first.note, first.unread) == (
        "adr",
        1,
        "1",
        "leases",
        0,
    )
    assert sequences.claim(conn, bob.ctx, "adr").number == 2
    assert sequences.claim(conn, ada.ctx, "migration").number == 1
    assert sequences.claim(conn, ada.ctx, "adr").number == 3
    assert list_events(conn, ada.ctx.project_id)[0] == (
        1,
        "claim",
        {"sequence": "adr", "number": 1, "formatted": "1", "note": "leases"},
    )
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 4


def test_a_claim_that_is_rolled_back_consumes_nothing(conn: Connection, ada: Agent) -> None:
    with conn.raw.transaction(force_rollback=True):
        assert sequences.claim(conn, ada.ctx, "adr").number == 1
    assert sequences.claim(conn, ada.ctx, "adr").number == 1
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 1


@pytest.mark.parametrize(
    ("prefix", "pad", "current", "formatted"),
    [
        ("ADR-", 4, 6, "ADR-0007"),
        ("", 0, 6, "7"),
        ("", 3, 999, "1000"),
        ("V", 12, 0, "V000000000001"),
        ("📦 ", 1, 9, "📦 10"),
    ],
)
def test_a_claim_is_formatted_as_seeded_and_as_listed(
    conn: Connection, ada: Agent, prefix: str, pad: int, current: int, formatted: str
) -> None:
    sequences.seed(conn, ada.ctx, "s", current, prefix=prefix.rstrip(), pad=pad)
    expected = formatted if prefix == prefix.rstrip() else formatted.replace(prefix, prefix.rstrip())
    (listed,) = sequences.list_sequences(conn, ada.ctx).sequences
    assert (listed.last_used, listed.next, listed.next_formatted) == (current, current + 1, expected)
    claimed = sequences.claim(conn, ada.ctx, "s")
    assert (claimed.number, claimed.formatted) == (current + 1, expected)


def test_seeding_a_new_sequence_is_open_to_all_and_starts_it(conn: Connection, ada: Agent) -> None:
    seeded = sequences.seed(conn, ada.ctx, "adr", 41, prefix="ADR-", pad=4)
    assert (seeded.sequence, seeded.current, seeded.prefix, seeded.pad) == ("adr", 41, "ADR-", 4)
    assert sequences.claim(conn, ada.ctx, "adr").formatted == "ADR-0042"
    assert list_events(conn, ada.ctx.project_id)[0][1:] == (
        "seed",
        {"sequence": "adr", "current": 41, "prefix": "ADR-", "pad": 4},
    )


def test_seeding_below_the_stored_value_is_a_conflict_that_names_it(conn: Connection, root: Agent) -> None:
    sequences.seed(conn, root.ctx, "adr", 41)
    before = database_checksum(conn)
    with assert_refused(conn, "conflict") as caught:
        sequences.seed(conn, root.ctx, "adr", 40, prefix="X")
    assert "41" in caught.value.message
    assert caught.value.data == {"current": 41}
    assert database_checksum(conn) == before


def test_seeding_unchanged_values_adds_no_event(conn: Connection, ada: Agent) -> None:
    sequences.seed(conn, ada.ctx, "adr", 41, prefix="ADR-", pad=4)
    before = database_checksum(conn)
    for prefix, pad in (("ADR-", 4), (None, 4), ("ADR-", None), (None, None)):
        again = sequences.seed(conn, ada.ctx, "adr", 41, prefix=prefix, pad=pad)
        assert (again.current, again.prefix, again.pad) == (41, "ADR-", 4)
    assert database_checksum(conn) == before


def test_changing_a_sequence_needs_a_project_admin(conn: Connection, ada: Agent, root: Agent) -> None:
    sequences.seed(conn, ada.ctx, "adr", 41, prefix="ADR-", pad=4)
    before = database_checksum(conn)
    for current, prefix, pad in (
        (42, None, None),
        (41, "B-", None),
        (41, None, 5),
        (41, "", None),
        (41, None, 0),
    ):
        with assert_refused(conn, "forbidden"):
            sequences.seed(conn, ada.ctx, "adr", current, prefix=prefix, pad=pad)
    assert database_checksum(conn) == before
    changed = sequences.seed(conn, root.ctx, "adr", 50)
    assert (changed.current, changed.prefix, changed.pad) == (50, "ADR-", 4)
    assert sequences.seed(conn, root.ctx, "adr", 50, prefix="").pad == 4
    assert sequences.seed(conn, root.ctx, "adr", 50, pad=0).prefix == ""
    assert sequences.claim(conn, ada.ctx, "adr").formatted == "51"
    assert [kind for _, kind, _ in list_events(conn, ada.ctx.project_id)] == [
        "seed",
        "seed",
        "seed",
        "seed",
        "claim",
    ]


def test_seeding_does_not_rewind_a_claimed_sequence(conn: Connection, root: Agent) -> None:
    for _ in range(3):
        sequences.claim(conn, root.ctx, "adr")
    with assert_refused(conn, "conflict"):
        sequences.seed(conn, root.ctx, "adr", 2)
    sequences.seed(conn, root.ctx, "adr", 3, prefix="ADR-")
    assert sequences.claim(conn, root.ctx, "adr").formatted == "ADR-4"


def test_a_prefix_is_stored_in_nfc(conn: Connection, ada: Agent) -> None:
    """32 code points as sent, 16 as stored: the limit applies to the stored prefix."""
    seeded = sequences.seed(conn, ada.ctx, "adr", 1, prefix="e\u0301" * 16)
    assert seeded.prefix == "\u00e9" * 16
    assert sequences.claim(conn, ada.ctx, "adr").formatted == "\u00e9" * 16 + "2"


def test_no_number_can_be_claimed_after_the_last_one(conn: Connection, ada: Agent, root: Agent) -> None:
    sequences.seed(conn, root.ctx, "adr", limits.MAX_INTEGER - 1)
    assert sequences.claim(conn, ada.ctx, "adr").number == limits.MAX_INTEGER
    before = database_checksum(conn)
    with assert_refused(conn, "conflict") as caught:
        sequences.claim(conn, ada.ctx, "adr")
    assert "last number" in caught.value.message
    assert database_checksum(conn) == before


def test_latest_claims_have_actor_and_time_and_omit_unclaimed_sequences(
    conn: Connection, ada: Agent, bob: Agent
) -> None:
    sequences.seed(conn, ada.ctx, "unclaimed", 5)
    sequences.claim(conn, ada.ctx, "adr")
    sequences.claim(conn, bob.ctx, "adr")
    sequences.claim(conn, ada.ctx, "migration")
    page = sequences.list_latest_claims(conn, ada.ctx)
    assert [(one.sequence, one.number, one.formatted, one.by) for one in page.sequences] == [
        ("adr", 2, "2", bob.actor),
        ("migration", 1, "1", ada.actor),
    ]
    assert page.sequences[0].at <= page.sequences[1].at
    assert page.next_before is None


def test_a_seed_after_a_claim_keeps_the_latest_claim(conn: Connection, root: Agent) -> None:
    sequences.claim(conn, root.ctx, "adr")
    sequences.seed(conn, root.ctx, "adr", 100, prefix="ADR-")
    (latest,) = sequences.list_latest_claims(conn, root.ctx).sequences
    assert (latest.number, latest.formatted) == (1, "1")
    (listed,) = sequences.list_sequences(conn, root.ctx).sequences
    assert (listed.last_used, listed.next_formatted) == (100, "ADR-101")


@pytest.mark.parametrize("lister", ["list_sequences", "list_latest_claims"])
def test_pages_contain_every_sequence_once(conn: Connection, ada: Agent, lister: str) -> None:
    names = sorted(["a", "a-b", "a_b", "a1", "ab", "b", "_", "-", "0", "z" * 64])
    for name in names:
        sequences.claim(conn, ada.ctx, name)
    seen: list[str] = []
    before = None
    while True:
        page = getattr(sequences, lister)(conn, ada.ctx, before=before, limit=3)
        assert len(page.sequences) <= 3
        seen += [getattr(one, "name", None) or one.sequence for one in page.sequences]
        before = page.next_before
        if before is None:
            break
    assert sorted(seen) == names
    assert len(seen) == len(names)


@pytest.mark.parametrize("limit", [0, -1, 501, 2**53])
def test_the_limit_of_a_page_is_bounded(conn: Connection, ada: Agent, limit: int) -> None:
    for lister in (sequences.list_sequences, sequences.list_latest_claims):
        with assert_refused(conn, "invalid_argument"):
            lister(conn, ada.ctx, limit=limit)


def test_the_first_seed_by_a_participant_is_bounded(conn: Connection, root: Agent, ada: Agent) -> None:
    """A sequence at 2^53 - 1 has no next number: the first seed could use it up for all participants."""
    with assert_refused(conn, "forbidden"):
        sequences.seed(conn, ada.ctx, "adr", limits.MAX_INTEGER)
    with assert_refused(conn, "forbidden"):
        sequences.seed(conn, ada.ctx, "adr", limits.MAX_FIRST_SEED + 1)
    assert sequences.claim(conn, ada.ctx, "adr").number == 1
    sequences.seed(conn, ada.ctx, "build", limits.MAX_FIRST_SEED)
    assert sequences.claim(conn, ada.ctx, "build").number == limits.MAX_FIRST_SEED + 1
    sequences.seed(conn, root.ctx, "serial", limits.MAX_INTEGER)
