"""Sample data: an owner with content of every kind."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bus.billing import metering, prices
from bus.coordination import leases, posts, presence, sequences, tasks
from bus.db import Connection
from bus.notifications import outbox
from bus.operations import project_purge
from bus.tenancy import (
    client_consent,
    client_grants,
    invite_redemption,
    invites,
    oauth_clients,
    owner_participation,
    owners,
    participants,
    projects,
    share_links,
    tokens,
)
from bus.tenancy.client_consent import ConsentRequest
from bus.tenancy.oauth_clients import OAuthClient
from tests.factories import Agent, authenticate_agent, make_agent, make_member, make_owner, make_project

CLIENT_ID = "https://agent.example/oauth/client.json"
"""An OAuth client whose document is known."""

_POST_BODY = """The migration is written and runs in 40 ms on a copy of production.

Please look at the lock it takes on `orders`: I think that it is short enough, but you know that table better. \
If you agree, merge it; I hold migrations/0042 until then."""


@dataclass(frozen=True)
class SampleData:
    """Two projects of one owner: `apollo` with content, `website` without.

    Attributes:
        route_values: values for the variables of routes, by name.
    """

    owner: owners.Owner
    full_project: projects.Project
    empty_project: projects.Project
    route_values: dict[str, Any]


def create_sample_data(conn: Connection, handle: str = "ada") -> SampleData:
    """Create the sample data, in the caller's transaction."""
    owner = make_owner(conn, handle)
    full, empty = make_project(conn, "apollo", owner), make_project(conn, "website", owner)
    old = make_project(conn, "an older one with a rather long name, which wraps on phones", owner)
    projects.archive(conn, old.id, actor=handle)
    me = owner_participation.get_or_create_owner_context(conn, owner.id, full.id)
    alice = make_agent(conn, full, "api-agent", lane="core", is_admin=True)
    bob = make_agent(conn, full, "review-agent", lane="review")
    carol = make_agent(conn, full, "carol", kind="human")
    make_agent(conn, full, "never-came", lane="docs")
    gone = make_agent(conn, full, "retired")
    participants.remove(conn, owner.id, gone.ctx.participant_id, actor=handle)
    participants.create(conn, owner.id, "reserve", actor=handle)
    for agent, lane, status in ((alice, "core", "rewriting the order service"), (bob, "review", "reading PR 118")):
        presence.register(conn, agent.ctx, lane, status=status)
    sequences.seed(conn, alice.ctx, "adr", 41, prefix="ADR-", pad=4)
    for agent, sequence in ((alice, "adr"), (bob, "adr"), (alice, "migration"), (bob, "migration")):
        sequences.claim(conn, agent.ctx, sequence, note="orders" if sequence == "migration" else None)
    leases.acquire(conn, alice.ctx, "src/orders/**", note="moving prices out")
    leases.acquire(conn, bob.ctx, "src/orders/total.py", ttl=timedelta(minutes=12))
    leases.acquire(conn, bob.ctx, "docs", mode="shared")
    asked = posts.create(
        conn, alice.ctx, _POST_BODY, to_lane="review", to_actor=handle, subject="Migration 42 is ready",
        ref="PR 118", tag="review", ack_within_seconds=3600,
    )  # fmt: skip
    posts.ack(conn, bob.ctx, [asked.post_id])
    answer = posts.create(
        conn, bob.ctx, "Looks good to me. One index can go.", to_actor="api-agent", reply_to=asked.post_id
    )
    posts.create(conn, me, "Leave the index in until Monday, please.", to_actor="api-agent", reply_to=answer.post_id)
    late = posts.create(conn, bob.ctx, "Who owns the invoices now?", to_actor="carol", ack_within_seconds=60)
    posts.create(conn, carol.ctx, "Deploys are frozen on Friday.", to_lane="core", subject="Freeze", tag="ops")
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() - interval '2 hours' WHERE project_id = %s AND id = %s",
        (full.id, late.post_id),
    )
    made = [
        tasks.create(conn, alice.ctx, title, lane=lane, priority=priority, detail=_POST_BODY).task_id
        for title, lane, priority in (
            ("Move prices out of orders", "core", 0),
            ("Review the migration", "review", 1),
            ("Write down how totals are rounded", "docs", 2),
            ("Drop the old column", "core", 3),
            ("A title that is long enough to need more than one line on every board that there is", None, 2),
        )
    ]
    for task_id in made[:2]:
        tasks.start(conn, alice.ctx, task_id)
    tasks.block(conn, alice.ctx, made[1], "the copy of production is stale", on=made[2])
    tasks.assign(conn, alice.ctx, made[2], "carol")
    done = tasks.create(conn, bob.ctx, "Measure the lock on orders").task_id
    tasks.start(conn, bob.ctx, done)
    tasks.ship(conn, bob.ctx, done, ref="PR 117")
    tokens.add(conn, full.id, "review-agent", label="laptop", ttl=timedelta(days=2), actor=handle)
    opened = invites.create_for_owner(conn, full.id, lane="core", uses=3, ttl_hours=72, actor=handle)
    authenticate_agent(conn, invite_redemption.redeem(conn, opened.code, name="guest"))
    invites.create_for_owner(
        conn, full.id, email="eve@example.org", participant_name="evelyn", is_admin=True, actor=handle
    )
    spent = invites.create_for_owner(conn, full.id, actor=handle)
    invite_redemption.redeem(conn, spent.code, name="newcomer")
    closed = invites.create_for_owner(conn, full.id, participant_id=carol.ctx.participant_id, actor=handle)
    invites.revoke(conn, full.id, closed.id, actor=handle)
    guest = make_member(conn, full, "viewer", f"{handle}-guest")
    for_person = invites.create_for_person(
        conn, full.id, "member", email="frank@example.org", acting_owner_id=owner.id, actor=handle
    )
    webhook = outbox.add_webhook(conn, owner.id, "https://hooks.example.org/bus", project_id=full.id, actor=handle)
    share_link = share_links.create(conn, full.id, ttl_hours=24, actor=handle)
    fence = leases.list_leases(conn, alice.ctx).leases[0].fence
    (token_id,) = conn.fetch_one("SELECT max(id) FROM token WHERE participation_id = %s", (bob.ctx.participation_id,))
    client = oauth_clients.store_document(
        conn, CLIENT_ID, "Example Agent", ["http://127.0.0.1/callback"], ttl=timedelta(days=1)
    )
    return SampleData(
        owner,
        full,
        empty,
        {
            "grant_id": _connect_client(conn, owner, bob, client),
            "owner_id": owner.id,
            "project_id": full.id,
            "participation_id": bob.ctx.participation_id,
            "participant_id": bob.ctx.participant_id,
            "token_id": token_id,
            "post_id": asked.post_id,
            "task_id": made[1],
            "fence": fence,
            "seq": asked.post_id,
            "invite_id": opened.id,
            "webhook_id": webhook.id,
            "link_id": share_link.id,
            "member_id": guest.id,
            "person_invite_id": for_person.id,
            "share_token": share_link.token,
            "name": "howto/admin",
            "code": opened.code,
            "token": "x" * 43,
        },
    )


def _connect_client(conn: Connection, owner: owners.Owner, agent: Agent, client: OAuthClient) -> int:
    """Let a client act as an agent; return the id of the connection."""
    request = ConsentRequest(
        client.client_id, client.name, "http://127.0.0.1:49152/callback", "https://bus.example.org/mcp", "c" * 43
    )
    code = client_consent.connect_participant(
        conn, owner.id, agent.ctx.participation_id, request, ttl=None, actor=owner.handle
    )
    grant = client_grants.lock_by_code(conn, code)
    assert grant is not None
    client_grants.issue_tokens(conn, grant)
    return grant.id


def project_path(sample: SampleData, suffix: str = "") -> str:
    """An address of the project with content."""
    return f"/admin/projects/{sample.full_project.id}/{suffix}"


def add_credit_usage(conn: Connection, sample: SampleData, *, days: int = 40) -> None:
    """Add credit usage of several days: a trial, a payment, and daily usage.

    Past days can only be created by inserting their rows; the totals agree as those written by the engine.
    """
    metering.set_metering_enabled(conn, True)
    metering.record_terms(conn, grace_hours=72, trial_credits=1000)
    gone = make_project(conn, "mercury", sample.owner)
    people_ids = [sample.route_values["participant_id"], sample.route_values["participant_id"] - 1]
    conn.execute("INSERT INTO credit_account (owner_id) VALUES (%s)", (sample.owner.id,))
    conn.raw.execute(
        "INSERT INTO credit_usage (owner_id, day, project_id, participant_id, event_type, events, credits)"
        " SELECT %(owner)s, (now() AT TIME ZONE 'UTC')::date - back, project, person, kind, n, n"
        " FROM generate_series(0, %(days)s - 1) AS back, unnest(%(projects)s::bigint[]) AS project,"
        "  unnest(%(people)s::bigint[]) AS person, unnest(ARRAY['claim', 'post', 'ack', 'lease']) AS kind,"
        "  LATERAL (SELECT (1 + (back * 7 + project * 3 + person * 5 + length(kind)) %% 9)"
        "   / CASE WHEN back %% 7 = 3 THEN 4 WHEN project = %(gone)s THEN 3 ELSE 1 END AS n) AS much"
        " WHERE n > 0 AND (project <> %(gone)s OR back > 12)",
        {
            "owner": sample.owner.id,
            "days": days,
            "projects": [sample.full_project.id, sample.empty_project.id, gone.id],
            "people": [*people_ids, 0] if days > 60 else people_ids,
            "gone": gone.id,
        },
    )
    conn.raw.execute(
        "WITH lines AS ("
        "  SELECT now() - %(days)s * interval '1 day' AS at, 'trial' AS kind, 1000 AS amount, 'trial' AS reference,"
        "   NULL::bigint AS project_id, '{}'::jsonb AS detail"
        "  UNION ALL SELECT now() - %(days)s * interval '17 hours', 'top_up', 2500, 'invoice 2026-117', NULL,"
        '   \'{"by": "cli", "reason": ""}\''
        "  UNION ALL SELECT least(day + interval '20 hours', now()), 'usage', -sum(n),"
        "   format('meter:%%s:%%s', project_id, row_number() OVER (PARTITION BY project_id ORDER BY day)), project_id,"
        "   jsonb_object_agg(event_type, jsonb_build_array(n, n))"
        "  FROM (SELECT day, project_id, event_type, sum(credits) AS n FROM credit_usage WHERE owner_id = %(owner)s"
        "   GROUP BY 1, 2, 3) AS used GROUP BY day, project_id)"
        " INSERT INTO credit_entry (owner_id, at, kind, amount, balance, reference, project_id, first_seq, last_seq,"
        "  detail, itemised)"
        " SELECT %(owner)s, at, kind, amount, sum(amount) OVER (ORDER BY at, reference), reference, project_id,"
        "  project_id / project_id, -amount * project_id / project_id, detail, kind = 'usage'"
        " FROM lines ORDER BY at, reference",
        {"owner": sample.owner.id, "days": days},
    )
    conn.execute(
        "UPDATE credit_account SET balance = (SELECT sum(amount) FROM credit_entry WHERE owner_id = %(owner)s)"
        " WHERE owner_id = %(owner)s",
        {"owner": sample.owner.id},
    )
    prices.set_price(conn, "claim", 2, effective_from=datetime.now(UTC) + timedelta(days=20), actor="cli")
    while not project_purge.begin_purge(conn, gone.id, actor=sample.owner.handle):
        pass
    while not project_purge.purge_step(conn, gone.id):
        pass
