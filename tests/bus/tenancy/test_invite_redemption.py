"""Redemption of invites: lost answers are repeated without a second token; some invites are for one address only."""

import pytest

from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations import project_purge
from bus.tenancy import (
    invite_queries,
    invite_redemption,
    invites,
    owner_participation,
    participant_queries,
    participants,
    participation_queries,
    participations,
    projects,
)
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.concurrency import failures, run_numbered_concurrently, successes
from tests.factories import Agent

NONCE = "0123456789abcdef"


def _is_valid(conn: Connection, issued: IssuedParticipation) -> bool:
    return participant_queries.whoami(conn, factories.authenticate_agent(conn, issued).ctx).actor == issued.actor


def test_an_offer_shows_the_terms_of_an_invite_and_uses_nothing(
    conn: Connection, root: Agent, project: Project
) -> None:
    created = invites.create(conn, root.ctx, kind="human", lane="core", uses=3)
    invite_redemption.redeem(conn, created.code, name="one")
    before = database_checksum(conn)
    offer = invite_redemption.get_offer(conn, created.code)
    assert (offer.project, offer.owner, offer.kind, offer.lane) == (project.name, project.owner, "human", "core")
    assert (offer.participant_name, offer.is_for_existing_participant, offer.email, offer.uses_left) == (
        None,
        False,
        None,
        2,
    )
    assert database_checksum(conn) == before


def test_an_offer_is_refused_as_its_redemption_is(conn: Connection, root: Agent, project: Project) -> None:
    used, late, archived, revoked = (invites.create(conn, root.ctx).code for _ in range(4))
    invite_redemption.redeem(conn, used, name="one")
    conn.execute("UPDATE invite SET expires_at = clock_timestamp() WHERE sha256 = sha256(%s)", (late.encode(),))
    (newest, *_) = [invite for invite in invite_queries.list_invites(conn, project.id) if invite.state == "open"]
    invites.revoke(conn, project.id, newest.id, actor="cli")
    for code, reason in ((used, "exhausted"), (late, "expired"), (revoked, "invalid"), ("inv_nothing", "invalid")):
        for call in (invite_redemption.get_offer, lambda conn, code: invite_redemption.redeem(conn, code, name="x")):
            with pytest.raises(BusError) as caught:
                call(conn, code)
            assert caught.value.data["reason"] == reason
    projects.archive(conn, project.id, actor="cli")
    with assert_refused(conn, "forbidden"):
        invite_redemption.get_offer(conn, archived)


def test_no_invite_is_created_in_an_archived_project(conn: Connection, root: Agent, project: Project) -> None:
    projects.archive(conn, project.id, actor="cli")
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden"):
        invites.create_for_owner(conn, project.id, actor="cli")
    with assert_refused(conn, "forbidden"):
        invites.create(conn, root.ctx)
    assert database_checksum(conn) == before


def test_the_same_nonce_returns_the_same_answer_again(conn: Connection, root: Agent) -> None:
    code = invites.create(conn, root.ctx).code
    first = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    before = database_checksum(conn)
    assert invite_redemption.redeem(conn, code, name="Carol", nonce=NONCE) == first
    assert database_checksum(conn) == before
    assert first.created
    assert _is_valid(conn, first)
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, code, name="carol")
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, code, name="carol", nonce=NONCE + "x")


def test_a_nonce_is_valid_for_one_name_one_invite_and_ten_minutes(conn: Connection, root: Agent) -> None:
    code, other = (invites.create(conn, root.ctx, uses=5).code for _ in range(2))
    first = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name="dave", nonce=NONCE)
    assert caught.value.data["reason"] == "nonce_reused"
    assert invite_redemption.redeem(conn, other, name="dave", nonce=NONCE).token != first.token
    (seconds_left,) = conn.fetch_one(
        "SELECT round(extract(epoch FROM max(expires_at) - clock_timestamp())) FROM sealed"
    )
    assert 590 < seconds_left <= 600
    conn.execute("UPDATE sealed SET expires_at = clock_timestamp()")
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    assert caught.value.data["reason"] == "name_taken"


def test_an_answer_is_not_repeated_after_the_invite_was_revoked(
    conn: Connection, root: Agent, project: Project
) -> None:
    created = invites.create(conn, root.ctx)
    invite_redemption.redeem(conn, created.code, name="carol", nonce=NONCE)
    invites.revoke(conn, project.id, created.id, actor="cli")
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, created.code, name="carol", nonce=NONCE)


@pytest.mark.parametrize("nonce", ["", "short", "x" * 15, "x" * 129, "0123456789abcde\n", "0123456789abcdeé"])
def test_a_malformed_nonce_is_refused_and_uses_nothing(conn: Connection, root: Agent, nonce: str) -> None:
    code = invites.create(conn, root.ctx).code
    before = database_checksum(conn)
    with assert_refused(conn, "invalid_argument"):
        invite_redemption.redeem(conn, code, name="carol", nonce=nonce)
    assert database_checksum(conn) == before


def test_a_stored_answer_does_not_contain_the_token_the_code_or_the_nonce(conn: Connection, root: Agent) -> None:
    code = invites.create(conn, root.ctx).code
    issued = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    stored = b"".join(row[0] for row in conn.fetch_all("SELECT lookup || box FROM sealed"))
    for known in (issued.token, code, NONCE):
        assert known.encode() not in stored


def test_concurrent_redemptions_with_one_nonce_are_one_participant_and_one_answer(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for round_ in range(15):
        with db.transaction() as conn:
            created = invites.create_for_owner(conn, project.id, uses=8, actor="cli")
        answers = run_numbered_concurrently(
            db,
            8,
            lambda conn, _: invite_redemption.redeem(conn, created.code, name=f"guest-{round_}", nonce=NONCE),  # noqa: B023
        )
        assert failures(answers) == []
        assert len(set(answers)) == 1
        with db.connection() as conn:
            assert invite_queries.list_invites(conn, project.id, limit=1)[0].used == 1
            assert len(participation_queries.list_participations(conn, project.id)) == round_ + 1
            assert _is_valid(conn, answers[0])
            assert conn.fetch_one("SELECT count(*) FROM token") == (round_ + 1,)


def test_an_invite_for_an_existing_participant_adds_a_token(
    conn: Connection, root: Agent, project: Project, ada: Agent
) -> None:
    created = invites.create_for_owner(
        conn, project.id, participant_id=ada.ctx.participant_id, lane="x", is_admin=True, actor="cli"
    )
    assert created.participant_name == "ada"
    issued = invite_redemption.redeem(conn, created.code, name="ignored")
    assert (issued.participation_id, issued.created) == (ada.ctx.participation_id, False)
    assert (issued.is_admin, issued.lane) == (False, None)
    assert _is_valid(conn, issued)
    assert participant_queries.whoami(conn, ada.ctx).actor == ada.actor
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, created.code)


def test_an_invite_for_a_participant_adds_it_to_a_project_that_it_is_not_in(
    conn: Connection, project: Project, ada: Agent
) -> None:
    second = projects.add(conn, project.owner_id, "second", actor="cli")
    for _ in range(2):
        code = invites.create_for_owner(
            conn, second.id, participant_id=ada.ctx.participant_id, lane="core", actor="cli"
        ).code
        issued = invite_redemption.redeem(conn, code)
        assert (issued.project, issued.lane) == ("second", "core")
        assert factories.authenticate_agent(conn, issued).ctx.participant_id == ada.ctx.participant_id
        participations.remove(conn, second.id, "ada", actor="cli")


def test_an_invite_for_a_participant_needs_one_of_the_owner_and_has_one_use(
    conn: Connection, project: Project, ada: Agent
) -> None:
    stranger = factories.make_agent(conn)
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    removed = factories.make_agent(conn, project, "removed")
    participants.remove(conn, project.owner_id, removed.ctx.participant_id, actor="cli")
    before = database_checksum(conn)
    for participant_id in (stranger.ctx.participant_id, owner.participant_id, removed.ctx.participant_id, 10**12):
        with assert_refused(conn, "not_found") as caught:
            invites.create_for_owner(conn, project.id, participant_id=participant_id, actor="cli")
        assert caught.value.message == "There is no such participant."
    for options in ({"uses": 2}, {"participant_name": "ada"}):
        with assert_refused(conn, "invalid_argument"):
            invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, actor="cli", **options)
    assert database_checksum(conn) == before


def test_an_invite_for_a_participant_that_was_removed_since_is_invalid(
    conn: Connection, project: Project, ada: Agent
) -> None:
    code = invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, actor="cli").code
    participants.remove(conn, project.owner_id, ada.ctx.participant_id, actor="cli")
    with assert_refused(conn, "not_found") as caught:
        invite_redemption.redeem(conn, code)
    assert caught.value.data["reason"] == "invalid"


def test_the_handle_of_the_owner_is_taken(conn: Connection, project: Project) -> None:
    with assert_refused(conn, "conflict"):
        invites.create_for_owner(conn, project.id, participant_name=project.owner, actor="cli")
    code = invites.create_for_owner(conn, project.id, actor="cli").code
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name=project.owner)
    assert caught.value.data["reason"] == "name_taken"


def test_an_invite_for_an_address_is_accepted_only_with_that_address(conn: Connection, project: Project) -> None:
    code = invites.create_for_owner(conn, project.id, email="Eve@example.org", actor="cli").code
    before = database_checksum(conn)
    for acceptor, reason in (
        (None, "sign_in_required"),
        (Acceptor("eve", frozenset()), "wrong_email"),
        (Acceptor("eve", frozenset({"eve@example.com"})), "wrong_email"),
    ):
        with assert_refused(conn, "forbidden") as caught:
            invite_redemption.redeem(conn, code, name="eve", acceptor=acceptor)
        assert caught.value.data["reason"] == reason
    assert database_checksum(conn) == before
    issued = invite_redemption.redeem(
        conn, code, name="eve", acceptor=Acceptor("eve", frozenset({"x@example.org", "eve@EXAMPLE.org"}))
    )
    assert issued.created
    assert issued.actor == f"{project.owner}/eve"
    ((redemption,),) = (invite.redemptions for invite in invite_queries.list_invites(conn, project.id))
    assert (redemption.actor, redemption.accepted_by) == (issued.actor, "eve")


def test_an_acceptor_never_takes_over_an_existing_participant(conn: Connection, project: Project, ada: Agent) -> None:
    code = invites.create_for_owner(conn, project.id, actor="cli").code
    # Of the owner, but not in this project: adding it would give its name to the acceptor.
    participants.create(conn, project.owner_id, "elsewhere", actor="cli")
    for name in ("ada", "elsewhere"):
        with assert_refused(conn, "conflict"):
            invite_redemption.redeem(conn, code, name=name, acceptor=Acceptor(name, frozenset()))


def test_a_purge_deletes_the_invites_of_the_project(conn: Connection, project: Project, ada: Agent) -> None:
    code = invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, actor="cli").code
    invite_redemption.redeem(conn, code, nonce=NONCE)
    project_purge.begin_purge(conn, project.id, actor="cli")
    while not project_purge.purge_step(conn, project.id):
        pass
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, code, nonce=NONCE)


def test_an_invite_created_while_its_project_is_archived_precedes_the_archive_or_is_refused(db: Database) -> None:
    for _ in range(20):
        with db.transaction() as conn:
            project = factories.make_project(conn)
        outcomes = run_numbered_concurrently(
            db,
            4,
            lambda conn, n: (
                projects.archive(conn, project.id, actor="cli")  # noqa: B023
                if n == 0
                else invites.create_for_owner(conn, project.id, actor="cli")  # noqa: B023
            ),
        )
        assert outcomes[0] is True
        assert all(isinstance(error, BusError) and error.code == "forbidden" for error in failures(outcomes))
        with db.connection() as conn:
            late_count = conn.fetch_one(
                "SELECT count(*) FROM invite i JOIN project p ON p.id = i.project_id WHERE i.created_at > p.archived_at"
            )
        assert late_count == (0,)
        assert len(successes(outcomes)) >= 1


@pytest.mark.parametrize("name", ["\u0430da", "r\u03bf\u03bft", "AD\u0410"])
def test_an_invited_person_cannot_choose_a_name_that_looks_like_another(
    conn: Connection, root: Agent, ada: Agent, project: Project, name: str
) -> None:
    created = invites.create(conn, root.ctx, uses=2)
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, created.code, name=name)
    assert caught.value.data["reason"] == "name_taken"
    assert "looks like" in caught.value.message
    # Nor one that looks like the owner.
    with assert_refused(conn, "conflict"):
        invite_redemption.redeem(conn, created.code, name=project.owner.replace("o", "\u043e", 1))
    assert invite_queries.list_invites(conn, project.id)[0].used == 0
    # The owner may choose it.
    locked = invites.create_for_owner(conn, project.id, participant_name=name, actor="owner")
    invite_redemption.redeem(conn, locked.code)
