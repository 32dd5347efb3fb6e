"""`pages`: what every page of the admin takes of the server, for an owner of many projects, one with a long ledger.

The application is called in this process, without a network and one page at a time: what is measured is its time and
PostgreSQL's.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from bench import synthetic_history
from bench.checks import require
from bench.environment import settle
from bench.fixtures import Team, make_teams
from bench.scenario import Result, Stage
from bench.stats import Summary, summarise
from bus.analytics import rollups
from bus.auth import sessions
from bus.config.settings import Settings
from bus.db import Database
from bus.tenancy import humans, invites
from webapp.app import create_app
from webapp.blueprints import Pages
from webapp.options import WebOptions

_HOST = "http://127.0.0.1:8787"
_TEAM = 5
_SMALL = 200
_TARGET_MS = 50.0
_LOAD_BYTES = 60_000
# Filters that a page offers, each alone and some with a type.
_FILTERS = {
    "ledger.index": (
        "type=claim",
        "type=escalate",
        "actor={actor}",
        "actor={actor}&type=post",
        "sequence=seq-1",
        "sequence=seq-1&number=7",
        "ref=PR+30",
        "tag=tag-5",
        "since={recently}",
        "before={middle}",
    ),
    "handoffs.index": ("to_lane=lane-1", "ref=PR+30", "tag=tag-5", "to_me=y", "unacked=y", "before={middle}"),
    "tasks.index": ("owner={actor}", "status=done", "lane=lane-1"),
    "leases.index": ("surface=src",),
    "pictures.index": ("period=90d",),
}
_SKIPPED = {"ledger.export_csv", "ledger.export_jsonl", "cards.show", "accept.show"}


def run(stage: Stage) -> Result:
    """Write the histories, then ask for every page in turn, and compare with 50 ms."""
    result = Result()
    database, effort = stage.bed.database, stage.effort
    teams = make_teams(database, effort.page_projects, _TEAM)
    events = max(effort.sizes)
    started = time.monotonic()
    for number, team in enumerate(teams):
        synthetic_history.write(database, team, events if number == 0 else _SMALL)
    result.lines.append(f"{events:,} events and {len(teams) - 1} times {_SMALL} in {time.monotonic() - started:.0f} s")
    for team in teams:
        _count(database, team.project_id)
    settle(stage.bed)
    app = create_app(Settings.from_env({"DATABASE_URL": stage.bed.url, "PUBLIC_URL": _HOST}), WebOptions())
    try:
        asked = list(_addresses(app, stage, teams[0]))
        client = _signed_in(app, stage, teams[0])
        taken: dict[str, list[float]] = {name: [] for name, _ in asked}
        sizes: dict[str, int] = {}
        # Caches are warm, templates compiled and statements prepared before anything counts.
        for round_ in range(-2, effort.page_samples):
            for name, address in asked:
                begun = time.perf_counter()
                answer = client.get(address, base_url=_HOST)
                seconds = time.perf_counter() - begun
                require(answer.status_code == 200, f"{address} answered {answer.status_code}")
                sizes[name] = len(answer.data)
                if round_ >= 0:
                    taken[name].append(seconds)
        load = _first_load(client)
    finally:
        app.extensions["bus.db"].close()
    _tell(result, {name: summarise(some) for name, some in taken.items()}, sizes, load)
    return result


def _count(database: Database, project_id: int) -> None:
    """As the job `keep_tallies` does, so that there are pictures."""
    done = rollups.BATCH
    while done == rollups.BATCH:
        with database.write() as conn:
            done = rollups.count(conn, project_id)


def _signed_in(app: Flask, stage: Stage, team: Team) -> FlaskClient:
    with stage.bed.database.write() as conn:
        token = sessions.open_(conn, team.agents[0].ctx.owner_id, method="link", lasts=timedelta(hours=1))
    client = app.test_client()
    client.set_cookie(app.config["BUS_COOKIE_NAME"], token, domain="127.0.0.1")
    return client


def _addresses(app: Flask, stage: Stage, team: Team) -> Iterator[tuple[str, str]]:
    """Every page of an owner, with and without its filters: its name and its address."""
    database, ctx = stage.bed.database, team.agents[1].ctx
    with database.write() as conn:
        humans.enter(conn, ctx.owner_id, team.project_id)
        for _ in range(60):
            invites.create_for(conn, team.project_id, actor="bench")
        (last,) = conn.one("SELECT last_seq FROM project_clock WHERE project_id = %s", (team.project_id,))
        (post,) = conn.one("SELECT max(id) FROM post WHERE project_id = %s", (team.project_id,))
    values: dict[str, Any] = {
        "project_id": team.project_id,
        "participation_id": ctx.participation_id,
        "participant_id": ctx.participant_id,
        "post_id": post,
        "task_id": 1,
        "seq": last // 2,
    }
    recently = datetime.now(UTC) - timedelta(hours=1)
    words = {"actor": team.agents[1].label, "middle": str(last // 2), "recently": f"{recently:%Y-%m-%dT%H:%M:%SZ}"}
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            private = isinstance(app.blueprints.get(rule.endpoint.partition(".")[0]), Pages)
            if not private or rule.endpoint in _SKIPPED or "GET" not in (rule.methods or ()):
                continue
            if not rule.arguments <= values.keys():
                continue
            built = rule.build({name: values[name] for name in rule.arguments})
            assert built is not None
            yield rule.endpoint, built[1]
            for query in _FILTERS.get(rule.endpoint, ()):
                yield f"{rule.endpoint} {query.partition('=')[0]}", f"{built[1]}?{query.format(**words)}"


def _first_load(client: FlaskClient) -> int:
    """Bytes of the dashboard with all that it refers to, as they are sent without compression."""
    page = client.get("/admin/", base_url=_HOST).data
    return len(page) + sum(
        len(client.get(f"/static/{name}", base_url=_HOST).data) for name in ("bus.css", "bus.js", "bus.svg")
    )


def _tell(result: Result, summaries: dict[str, Summary], sizes: dict[str, int], load: int) -> None:
    slowest = max(summaries, key=lambda name: summaries[name].p50)
    over = sorted(name for name, summary in summaries.items() if summary.p50 > _TARGET_MS)
    result.figures |= {
        "slowest": slowest,
        "slowest_ms": summaries[slowest].p50,
        "over": over,
        "first_load": load,
        "p50": {name: summary.p50 for name, summary in summaries.items()},
    }
    result.lines.append(
        f"{len(summaries)} pages; the slowest is {slowest} with {summaries[slowest].p50:.1f} ms;"
        f" {len(over)} over {_TARGET_MS:.0f} ms; the dashboard and its assets are {load:,} bytes"
    )
    in_order: Callable[[str], float] = lambda name: -summaries[name].p50  # noqa: E731
    result.tables.append(
        (
            ["page", "p50 ms", "p99 ms", "bytes"],
            [
                [name, f"{summaries[name].p50:.1f}", f"{summaries[name].p99:.1f}", f"{sizes[name]:,}"]
                for name in sorted(summaries, key=in_order)
            ],
        )
    )
    result.checked.append(f"{len(summaries)} pages answered 200")
    require(load < _LOAD_BYTES, f"the first load is {load:,} bytes")
