"""`pages`: the server time of every page, for an owner of many projects, one of them with a long ledger.

The application runs in this process and serves one page at a time without a network, so the scenario measures the time
of the application and of PostgreSQL.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from bench import synthetic_history
from bench.checks import require
from bench.environment import checkpoint_and_pause
from bench.fixtures import Team, make_teams
from bench.scenario import Harness, Result
from bench.stats import LatencySummary, summarize_latencies
from bus.analytics import rollups
from bus.auth import sessions
from bus.config.settings import Settings
from bus.db import Database
from bus.tenancy import invites, owner_participation
from webapp.app import create_app
from webapp.blueprints import OwnerBlueprint
from webapp.settings import WebOptions

_HOST = "http://127.0.0.1:8787"
_TEAM_SIZE = 5
_SMALL_PROJECT_EVENTS = 200
_TARGET_MS = 50.0
_MAX_FIRST_LOAD_BYTES = 120_000
# Filters of pages, each alone and some with a type.
_PAGE_FILTERS = {
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
    "insights.index": ("period=90d",),
}
# Exports, pages that exist only once, and the stream, which Flask declines.
_SKIPPED_ENDPOINTS = {
    "ledger.export_csv",
    "ledger.export_jsonl",
    "credentials.show",
    "accept_invite.show",
    "board.stream",
}


def run(harness: Harness) -> Result:
    """Write the histories, request every page in turn, and compare the latency with 50 ms."""
    result = Result()
    database, effort = harness.environment.database, harness.effort
    teams = make_teams(database, effort.page_projects, _TEAM_SIZE)
    events = max(effort.sizes)
    started_at = time.monotonic()
    for number, team in enumerate(teams):
        synthetic_history.write(database, team, events if number == 0 else _SMALL_PROJECT_EVENTS)
    result.lines.append(
        f"{events:,} events and {len(teams) - 1} times {_SMALL_PROJECT_EVENTS} written in"
        f" {time.monotonic() - started_at:.0f} s"
    )
    for team in teams:
        _build_rollups(database, team.project_id)
    checkpoint_and_pause(harness.environment)
    app = create_app(
        Settings.from_env({"DATABASE_URL": harness.environment.database_url, "PUBLIC_URL": _HOST}), WebOptions()
    )
    try:
        pages = list(_list_page_urls(app, harness, teams[0]))
        client = _make_signed_in_client(app, harness, teams[0])
        latencies: dict[str, list[float]] = {name: [] for name, _ in pages}
        sizes: dict[str, int] = {}
        # The first rounds warm caches, compile templates and prepare statements; they are not recorded.
        for round_number in range(-2, effort.page_samples):
            for name, url in pages:
                request_started_at = time.perf_counter()
                response = client.get(url, base_url=_HOST)
                seconds = time.perf_counter() - request_started_at
                if response.status_code == 308:
                    # An earlier address of a page.
                    continue
                require(response.status_code == 200, f"{url} has status {response.status_code}")
                sizes[name] = len(response.data)
                if round_number >= 0:
                    latencies[name].append(seconds)
        first_load_bytes = _measure_first_load(client)
    finally:
        app.extensions["bus.db"].close()
    summaries = {name: summarize_latencies(seconds) for name, seconds in latencies.items() if seconds}
    _report(result, summaries, sizes, first_load_bytes)
    return result


def _build_rollups(database: Database, project_id: int) -> None:
    """Build the rollups as the job `keep_tallies` does, so that there are charts."""
    event_count = rollups.BATCH_SIZE
    while event_count == rollups.BATCH_SIZE:
        with database.transaction() as conn:
            event_count = rollups.roll_up_batch(conn, project_id)


def _make_signed_in_client(app: Flask, harness: Harness, team: Team) -> FlaskClient:
    with harness.environment.database.transaction() as conn:
        token = sessions.open_session(conn, team.agents[0].ctx.owner_id, method="link", ttl=timedelta(hours=1))
    client = app.test_client()
    client.set_cookie(app.config["BUS_COOKIE_NAME"], token, domain="127.0.0.1")
    return client


def _list_page_urls(app: Flask, harness: Harness, team: Team) -> Iterator[tuple[str, str]]:
    """List the name and the URL of every page of an owner, with and without its filters."""
    database, ctx = harness.environment.database, team.agents[1].ctx
    with database.transaction() as conn:
        owner_participation.get_or_create_owner_context(conn, ctx.owner_id, team.project_id)
        for _ in range(60):
            invites.create_for_owner(conn, team.project_id, actor="bench")
        (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (team.project_id,))
        (post_id,) = conn.fetch_one("SELECT max(id) FROM post WHERE project_id = %s", (team.project_id,))
    values: dict[str, Any] = {
        "project_id": team.project_id,
        "participation_id": ctx.participation_id,
        "participant_id": ctx.participant_id,
        "post_id": post_id,
        "task_id": 1,
        "seq": last_seq // 2,
    }
    recently = datetime.now(UTC) - timedelta(hours=1)
    filter_values = {
        "actor": team.agents[1].label,
        "middle": str(last_seq // 2),
        "recently": f"{recently:%Y-%m-%dT%H:%M:%SZ}",
    }
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            is_owner_page = isinstance(app.blueprints.get(rule.endpoint.partition(".")[0]), OwnerBlueprint)
            if not is_owner_page or rule.endpoint in _SKIPPED_ENDPOINTS or "GET" not in (rule.methods or ()):
                continue
            if not rule.arguments <= values.keys():
                continue
            built = rule.build({name: values[name] for name in rule.arguments})
            assert built is not None
            _, url = built
            yield rule.endpoint, url
            for query in _PAGE_FILTERS.get(rule.endpoint, ()):
                yield f"{rule.endpoint} {query.partition('=')[0]}", f"{url}?{query.format(**filter_values)}"


def _measure_first_load(client: FlaskClient) -> int:
    """Measure the bytes of the inbox and its assets, as a browser transfers them."""
    page = client.get("/admin/", base_url=_HOST).data
    return len(page) + sum(
        len(client.get(f"/static/{name}", base_url=_HOST, headers={"Accept-Encoding": "gzip"}).data)
        for name in ("bus.css", "pages.css", "bus.js", "page.js", "bus.svg", "icons.svg", "idiomorph.js", "inter.woff2")
    )


def _report(result: Result, summaries: dict[str, LatencySummary], sizes: dict[str, int], first_load_bytes: int) -> None:
    slowest = max(summaries, key=lambda name: summaries[name].p50)
    over_target = sorted(name for name, summary in summaries.items() if summary.p50 > _TARGET_MS)
    result.figures |= {
        "slowest": slowest,
        "slowest_ms": summaries[slowest].p50,
        "over": over_target,
        "first_load": first_load_bytes,
        "p50": {name: summary.p50 for name, summary in summaries.items()},
    }
    result.lines.append(
        f"{len(summaries)} pages; the slowest is {slowest} with {summaries[slowest].p50:.1f} ms;"
        f" {len(over_target)} over {_TARGET_MS:.0f} ms; the inbox and its assets are {first_load_bytes:,} bytes"
    )
    result.tables.append(
        (
            ["page", "p50 ms", "p99 ms", "bytes"],
            [
                [name, f"{summaries[name].p50:.1f}", f"{summaries[name].p99:.1f}", f"{sizes[name]:,}"]
                for name in sorted(summaries, key=lambda name: -summaries[name].p50)
            ],
        )
    )
    result.checked.append(f"{len(summaries)} pages with status 200")
    require(first_load_bytes < _MAX_FIRST_LOAD_BYTES, f"the first load is {first_load_bytes:,} bytes")
