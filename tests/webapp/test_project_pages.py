"""Handoffs, tasks, leases and the ledger in the admin pages."""

import csv
import io
import json
import re

import pytest

from bus.coordination import leases, posts, task_queries
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.tenancy import owner_participation, participation_queries
from tests.assertions import assert_ledger_consistent
from tests.factories import make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser


def test_the_owner_posts_replies_and_acknowledges(ada: Browser, sample: SampleData, db: Database) -> None:
    post_id = sample.route_values["post_id"]
    thread = ada.get(project_path(sample, f"handoffs/{post_id}"))
    assert "Leave the index in until Monday" in thread.text
    ada.submit(project_path(sample, f"handoffs/{post_id}/ack"))
    ada.get(project_path(sample, f"handoffs/{post_id}"))
    answer = ada.submit(
        project_path(sample, f"handoffs/{post_id}/reply"), body="Merged. <b>Thanks</b>", to_actor="ada/api-agent"
    )
    made = int(answer.location.partition("#")[0].rpartition("/")[2])
    shown = ada.get(answer.location.partition("#")[0]).text
    assert "Merged. &lt;b&gt;Thanks&lt;/b&gt;" in shown
    ada.get(project_path(sample, "handoffs/new"))
    refused = ada.submit("", to_actor="missing", body="hello")
    assert refused.status_code == 400
    assert "No participant of this project is called" in refused.text
    ada.get(project_path(sample, "handoffs/new"))
    assert ada.submit("", to_lane="core", body="hello", ack_within="3600").status_code == 303
    with db.connection() as conn:
        alice = participation_queries.get(conn, sample.full_project.id, "api-agent")
        rows = conn.fetch_all(
            "SELECT actor, reply_to FROM post WHERE project_id = %s AND id = %s", (sample.full_project.id, made)
        )
        assert rows == [("ada", post_id)]
        assert conn.fetch_one(
            "SELECT acked_at IS NOT NULL FROM delivery WHERE project_id = %s AND post_id = %s"
            " AND participation_id = (SELECT participation_id FROM post WHERE project_id = %s AND id = %s)",
            (sample.full_project.id, post_id, sample.full_project.id, made),
        ) == (True,)
        assert alice.label == "api-agent"
        assert_ledger_consistent(conn, sample.full_project.id)
    assert ada.get(project_path(sample, "handoffs/999999")).status_code == 404


def test_handoffs_are_filtered(ada: Browser, sample: SampleData) -> None:
    assert "Migration 42" in ada.get(project_path(sample, "handoffs/?ref=PR+118")).text
    assert "Migration 42" not in ada.get(project_path(sample, "handoffs/?tag=ops")).text
    assert "No handoffs match" in ada.get(project_path(sample, "handoffs/?to_lane=nowhere")).text
    assert "Freeze" in ada.get(project_path(sample, "handoffs/?unacked=y")).text
    bad = ada.get(project_path(sample, "handoffs/"), query_string={"tag": "a\u202eb"})
    assert (bad.status_code, "invisible" in bad.text) == (200, True)


def test_posts_shown_to_the_owner_are_surfaced(ada: Browser, sample: SampleData, db: Database) -> None:
    question = (
        "SELECT d.surfaced_at IS NOT NULL FROM delivery d JOIN participation p ON p.id = d.participation_id"
        " JOIN participant pt ON pt.id = p.participant_id WHERE d.project_id = %s AND d.post_id = %s AND pt.label = ''"
    )
    params = (sample.full_project.id, sample.route_values["post_id"])
    with db.connection() as conn:
        assert conn.fetch_one(question, params) == (False,)
    ada.get(project_path(sample, "handoffs/"))
    with db.connection() as conn:
        assert conn.fetch_one(question, params) == (True,)


def test_the_owner_creates_assigns_and_unblocks_tasks(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "tasks/new"))
    assert ada.submit("", title="").status_code == 400
    ada.get(project_path(sample, "tasks/new"))
    assert ada.submit("", title="x", blocked_on="seven").status_code == 400
    ada.get(project_path(sample, "tasks/new"))
    made = ada.submit("", title="Approve it", owner="ada", blocked_on="#1", priority="0")
    task_id = int(made.location.rpartition("/")[2])
    shown = ada.get(made.location).text
    assert "Approve it" in shown
    ada.submit(f"{made.location}/resolve")
    ada.get(made.location)
    assert ada.submit(f"{made.location}/assign", owner="no-such-agent").status_code == 400
    ada.get(made.location)
    ada.submit(f"{made.location}/assign", owner="carol")
    with db.connection() as conn:
        listed = task_queries.list_tasks(conn, _owner_ctx(conn, sample), owner="carol").tasks
    assert task_id in {task.task_id for task in listed}
    assert "Approve it" in ada.get(project_path(sample, "tasks/?owner=carol")).text
    assert "Approve it" not in ada.get(project_path(sample, "tasks/?status=done")).text
    assert ada.get(project_path(sample, "tasks/424242")).status_code == 404


def _owner_ctx(conn: Connection, sample: SampleData) -> Ctx:
    return owner_participation.get_or_create_owner_context(conn, sample.owner.id, sample.full_project.id)


def test_a_stuck_lease_is_released_from_the_page(ada: Browser, sample: SampleData, db: Database) -> None:
    page = ada.get(project_path(sample, "leases/")).text
    assert "contended" in page
    fence = sample.route_values["fence"]
    ada.submit(project_path(sample, f"leases/{fence}/release"))
    with db.connection() as conn:
        held = leases.list_leases(conn, _owner_ctx(conn, sample)).leases
    assert fence not in {one.fence for one in held}
    again = ada.follow_redirects(
        ada.post(project_path(sample, f"leases/{fence}/release"), data={"csrf_token": ada.get_csrf_token()})
    )
    assert "had already ended" in again.text
    overlapping = ada.get(project_path(sample, "leases/?surface=src")).text
    assert "src/orders/**" in overlapping
    assert 'role="alert"' in ada.get(project_path(sample, "leases/?surface=../x")).text


def test_the_ledger_is_filtered_linked_to_and_paged(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.connection() as conn:
        (last,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (sample.full_project.id,))
    page = ada.get(project_path(sample, "ledger/")).text
    assert f">#{last}</a>" in page
    claims = ada.get(project_path(sample, "ledger/?type=claim&sequence=adr")).text
    assert "ADR-0042" in claims
    assert "shipped" not in claims
    for query in ("actor=no-such-agent", "number=x", "since=yesterday"):
        answer = ada.get(project_path(sample, f"ledger/?{query}"))
        assert answer.status_code == 200
        assert 'role="alert"' in answer.text
    event = ada.get(project_path(sample, f"ledger/{sample.route_values['seq']}"))
    assert "&#34;PR 118&#34;" in event.text
    for nowhere in ("0", str(last + 1), str(2**53), str(2**62)):
        assert ada.get(project_path(sample, f"ledger/{nowhere}")).status_code == 404
    assert ada.get(project_path(sample, f"ledger/?before={2**60}")).status_code == 200


def test_the_ledger_is_exported_completely_and_filtered(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "=cmd")
        posts.create(conn, agent.ctx, "hello", to_lane="core", subject='a "quoted", thing\nand a line')
        for number in range(1200):
            conn.execute(
                "SELECT bus_append(%s, %s, %s, 'seed', jsonb_build_object('sequence', 's', 'current', %s::integer))",
                (sample.full_project.id, agent.ctx.participation_id, agent.actor, number),
            )
        (last,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (sample.full_project.id,))
    lines = ada.get(project_path(sample, "ledger/export.jsonl")).text.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["id"] for event in events] == list(range(last, 0, -1))
    answer = ada.get(project_path(sample, "ledger/export.csv?type=post"))
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["type"] for row in rows} == {"post"}
    assert json.loads(rows[0]["payload"])["subject"] == 'a "quoted", thing\nand a line'
    assert ada.get(project_path(sample, "ledger/export.csv?number=x")).status_code == 400


def test_refused_filters_and_fields_name_their_label(ada: Browser, sample: SampleData) -> None:
    page = ada.get(project_path(sample, "ledger/?since=yesterday")).text
    assert "From (UTC): enter a date such as 2026-01-31." in page
    assert "No events match" not in page
    ada.get(project_path(sample, "handoffs/new"))
    assert "Message is required." in ada.submit("", to_lane="core", body="").text
    ada.get(project_path(sample, "handoffs/new"))
    refused = ada.submit("", to_actor="revew-agent", body="hello").text
    # The error belongs to the field, and names a similar participant.
    assert 'aria-describedby="to_actor-hint to_actor-error"' in refused
    assert "review-agent" in refused


def test_the_last_day_of_a_ledger_filter_counts_whole(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.connection() as conn:
        (today,) = conn.fetch_one("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")
    page = ada.get(project_path(sample, f"ledger/?type=post&since={today}&until={today}")).text
    assert "Freeze" in page
    assert f"Remove filter To (UTC): {today}" in page


def test_several_acks_in_a_row_are_one_row(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        writer, reader = (make_agent(conn, sample.full_project, name) for name in ("writer", "reader"))
        ids = [posts.create(conn, writer.ctx, f"note {n}", to_actor="reader").post_id for n in range(3)]
        posts.ack(conn, reader.ctx, ids)
    page = ada.get(project_path(sample, "ledger/")).text
    assert "acknowledged 3 handoffs" in page
    for number in range(3):
        assert f">note {number}</a>" in page
    assert 'class="day"' in page


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("handoffs/new", ("names", "lanes")),
        ("handoffs/", ("lanes",)),
        ("tasks/new", ("names", "lanes")),
        ("tasks/", ("names", "lanes")),
        ("ledger/", ("names",)),
        ("invites/new", ("lanes",)),
        ("participants/new", ("lanes",)),
    ],
)
def test_fields_suggest_the_names_and_lanes_of_the_project(
    ada: Browser, sample: SampleData, db: Database, path: str, fields: tuple[str, ...]
) -> None:
    with db.transaction() as conn:
        make_agent(conn, sample.full_project, "suggested", lane="harbour")
    page = ada.get(project_path(sample, path)).text
    for name in fields:
        assert f'list="{name}"' in page
        (options,) = re.findall(f'<datalist id="{name}">(.*?)</datalist>', page)
        assert f'value="{"suggested" if name == "names" else "harbour"}"' in options
