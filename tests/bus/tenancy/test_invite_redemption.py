"""Redeeming: a lost answer is fetched again without minting twice, and some invites are for one person only."""

import pytest

from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations import project_purge
from bus.tenancy import invite_redemption, invites, participant_queries, participants, participations, projects
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.concurrency import failures, run_numbered_concurrently, successes
from tests.factories import Agent

NONCE = "0123456789abcdef"


def _works(conn: Connection, granted: IssuedParticipation) -> bool:
    return participant_queries.whoami(conn, factories.authenticate_agent(conn, granted).ctx).actor == granted.actor


def test_looking_says_what_an_invite_offers_and_uses_nothing_up(
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


def test_looking_refuses_as_redeeming_does(conn: Connection, root: Agent, project: Project) -> None:
    used, late, gone, closed = (invites.create(conn, root.ctx).code for _ in range(4))
    invite_redemption.redeem(conn, used, name="one")
    conn.execute("UPDATE invite SET expires_at = clock_timestamp() WHERE sha256 = sha256(%s)", (late.encode(),))
    (newest, *_) = [one for one in invites.list_invites(conn, project.id) if one.state == "open"]
    invites.revoke(conn, project.id, newest.id, actor="cli")
    for code, reason in ((used, "exhausted"), (late, "expired"), (closed, "invalid"), ("inv_nothing", "invalid")):
        for call in (invite_redemption.get_offer, lambda conn, code: invite_redemption.redeem(conn, code, name="x")):
            with pytest.raises(BusError) as caught:
                call(conn, code)
            assert caught.value.data["reason"] == reason
    projects.archive(conn, project.id, actor="cli")
    with assert_refused(conn, "forbidden"):
        invite_redemption.get_offer(conn, gone)


def test_an_archived_project_makes_no_invites(conn: Connection, root: Agent, project: Project) -> None:
    projects.archive(conn, project.id, actor="cli")
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden"):
        invites.create_for_owner(conn, project.id, actor="cli")
    with assert_refused(conn, "forbidden"):
        invites.create(conn, root.ctx)
    assert database_checksum(conn) == before


def test_the_same_nonce_gives_the_same_answer_again(conn: Connection, root: Agent) -> None:
    code = invites.create(conn, root.ctx).code
    first = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    before = database_checksum(conn)
    assert invite_redemption.redeem(conn, code, name="Carol", nonce=NONCE) == first
    assert database_checksum(conn) == before
    assert first.created
    assert _works(conn, first)
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, code, name="carol")
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, code, name="carol", nonce=NONCE + "x")


def test_a_nonce_is_good_for_one_name_one_invite_and_ten_minutes(conn: Connection, root: Agent) -> None:
    code, other = (invites.create(conn, root.ctx, uses=5).code for _ in range(2))
    first = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name="dave", nonce=NONCE)
    assert caught.value.data["reason"] == "nonce_reused"
    assert invite_redemption.redeem(conn, other, name="dave", nonce=NONCE).token != first.token
    (left,) = conn.fetch_one("SELECT round(extract(epoch FROM max(expires_at) - clock_timestamp())) FROM sealed")
    assert 590 < left <= 600
    conn.execute("UPDATE sealed SET expires_at = clock_timestamp()")
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    assert caught.value.data["reason"] == "name_taken"


def test_an_answer_is_not_fetched_again_after_the_invite_was_revoked(
    conn: Connection, root: Agent, project: Project
) -> None:
    created = invites.create(conn, root.ctx)
    invite_redemption.redeem(conn, created.code, name="carol", nonce=NONCE)
    invites.revoke(conn, project.id, created.id, actor="cli")
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, created.code, name="carol", nonce=NONCE)


@pytest.mark.parametrize("nonce", ["", "short", "x" * 15, "x" * 129, "0123456789abcde\n", "0123456789abcdeé"])
def test_a_nonce_that_is_no_good_is_refused_and_uses_nothing_up(conn: Connection, root: Agent, nonce: str) -> None:
    code = invites.create(conn, root.ctx).code
    before = database_checksum(conn)
    with assert_refused(conn, "invalid_argument"):
        invite_redemption.redeem(conn, code, name="carol", nonce=nonce)
    assert database_checksum(conn) == before


def test_what_is_kept_of_an_answer_does_not_tell_the_token(conn: Connection, root: Agent) -> None:
    code = invites.create(conn, root.ctx).code
    granted = invite_redemption.redeem(conn, code, name="carol", nonce=NONCE)
    stored = b"".join(row[0] for row in conn.fetch_all("SELECT lookup || box FROM sealed"))
    for known in (granted.token, code, NONCE):
        assert known.encode() not in stored


def test_the_same_nonce_at_once_is_one_participant_and_one_answer(db: Database) -> None:
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
            assert invites.list_invites(conn, project.id, limit=1)[0].used == 1
            assert len(participations.list_participations(conn, project.id)) == round_ + 1
            assert _works(conn, answers[0])
            assert conn.fetch_one("SELECT count(*) FROM token") == (round_ + 1,)


def test_an_invite_for_a_participant_that_is_there_gives_it_one_more_token(
    conn: Connection, root: Agent, project: Project, ada: Agent
) -> None:
    created = invites.create_for_owner(
        conn, project.id, participant_id=ada.ctx.participant_id, lane="x", is_admin=True, actor="cli"
    )
    assert created.participant_name == "ada"
    granted = invite_redemption.redeem(conn, created.code, name="ignored")
    assert (granted.participation_id, granted.created) == (ada.ctx.participation_id, False)
    assert (granted.is_admin, granted.lane) == (False, None)
    assert _works(conn, granted)
    assert participant_queries.whoami(conn, ada.ctx).actor == ada.actor
    with assert_refused(conn, "wrong_state"):
        invite_redemption.redeem(conn, created.code)


def test_an_invite_for_a_participant_lets_it_in_where_it_is_not(conn: Connection, project: Project, ada: Agent) -> None:
    second = projects.add(conn, project.owner_id, "second", actor="cli")
    for _ in range(2):
        code = invites.create_for_owner(
            conn, second.id, participant_id=ada.ctx.participant_id, lane="core", actor="cli"
        ).code
        granted = invite_redemption.redeem(conn, code)
        assert (granted.project, granted.lane) == ("second", "core")
        assert factories.authenticate_agent(conn, granted).ctx.participant_id == ada.ctx.participant_id
        participations.remove(conn, second.id, "ada", actor="cli")


def test_an_invite_for_a_participant_needs_one_of_the_owner_and_has_one_use(
    conn: Connection, project: Project, ada: Agent
) -> None:
    stranger = factories.make_agent(conn)
    owner = participations.get_or_create_owner_context(conn, project.owner_id, project.id)
    gone = factories.make_agent(conn, project, "gone")
    participants.remove(conn, project.owner_id, gone.ctx.participant_id, actor="cli")
    before = database_checksum(conn)
    for participant_id in (stranger.ctx.participant_id, owner.participant_id, gone.ctx.participant_id, 10**12):
        with assert_refused(conn, "not_found") as caught:
            invites.create_for_owner(conn, project.id, participant_id=participant_id, actor="cli")
        assert caught.value.message == "There is no such participant."
    for options in ({"uses": 2}, {"participant_name": "ada"}):
        with assert_refused(conn, "invalid_argument"):
            invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, **options)  # type: ignore[arg-type]
    assert database_checksum(conn) == before


def test_an_invite_for_a_participant_that_is_removed_meanwhile_lets_nobody_in(
    conn: Connection, project: Project, ada: Agent
) -> None:
    code = invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, actor="cli").code
    participants.remove(conn, project.owner_id, ada.ctx.participant_id, actor="cli")
    with assert_refused(conn, "not_found") as caught:
        invite_redemption.redeem(conn, code)
    assert caught.value.data["reason"] == "invalid"


def test_the_name_of_the_owner_is_taken(conn: Connection, project: Project) -> None:
    with assert_refused(conn, "conflict"):
        invites.create_for_owner(conn, project.id, participant_name=project.owner, actor="cli")
    code = invites.create_for_owner(conn, project.id, actor="cli").code
    with assert_refused(conn, "conflict") as caught:
        invite_redemption.redeem(conn, code, name=project.owner)
    assert caught.value.data["reason"] == "name_taken"


def test_an_invite_for_an_address_is_accepted_by_its_owner_alone(conn: Connection, project: Project) -> None:
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
    granted = invite_redemption.redeem(
        conn, code, name="eve", acceptor=Acceptor("eve", frozenset({"x@example.org", "eve@EXAMPLE.org"}))
    )
    assert granted.created
    assert granted.actor == f"{project.owner}/eve"
    ((came,),) = (one.redemptions for one in invites.list_invites(conn, project.id))
    assert (came.actor, came.accepted_by) == (granted.actor, "eve")


def test_who_accepts_never_inherits_a_participant(conn: Connection, project: Project, ada: Agent) -> None:
    code = invites.create_for_owner(conn, project.id, actor="cli").code
    with assert_refused(conn, "conflict"):
        invite_redemption.redeem(conn, code, name="ada", acceptor=Acceptor("ada", frozenset()))


def test_a_purged_project_takes_its_invites_along(conn: Connection, project: Project, ada: Agent) -> None:
    code = invites.create_for_owner(conn, project.id, participant_id=ada.ctx.participant_id, actor="cli").code
    invite_redemption.redeem(conn, code, nonce=NONCE)
    project_purge.begin_purge(conn, project.id, actor="cli")
    while not project_purge.purge_step(conn, project.id):
        pass
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, code, nonce=NONCE)


def test_an_invite_made_while_its_project_is_archived_is_refused_or_was_first(db: Database) -> None:
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
        assert all(isinstance(one, BusError) and one.code == "forbidden" for one in failures(outcomes))
        with db.connection() as conn:
            late = conn.fetch_one(
                "SELECT count(*) FROM invite i JOIN project p ON p.id = i.project_id WHERE i.created_at > p.archived_at"
            )
        assert late == (0,)
        assert len(successes(outcomes)) >= 1
