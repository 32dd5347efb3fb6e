"""A sample site and the address of every page, for tests that open all pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Page
from werkzeug.routing import Rule

from bus.analytics import rollups
from bus.auth import identities
from bus.auth.identities import IdentityClaims
from bus.billing import credits
from bus.config.redaction import MaskedSetting
from bus.db import Connection, Database
from bus.operations import jobs, process_registry
from bus.tenancy import device_authorizations, oauth_clients, owners, projects
from tests import factories
from tests.webapp import sample_data
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import WebApp
from webapp.blueprints import OperatorBlueprint, OwnerBlueprint
from workers.jobs import all_jobs

_ROOT = Path(__file__).resolve().parents[2]
# Not pages: requested by programs, or downloads. Pages that are shown once are opened by `show_one_time_cards`.
_SKIPPED_ENDPOINTS = {
    "static",
    "health.healthz",
    "health.readyz",
    "metrics.index",
    "stats.index",
    "oauth.callback",
    "ledger.export_csv",
    "ledger.export_jsonl",
    "insights.report_file",
    "documentation.image",
    "credits.entries_csv",
    "operator_audit.export",
    "credentials.show",
    "board.stream",
    "shared_board.stream",
    # Its address carries the request of a client; see `iter_pages`.
    "authorize.show",
}
# Settings that enable features with pages or parts of pages.
FEATURE_ENV = {
    # Any Markdown file.
    "TERMS_FILE": str(_ROOT / "SECURITY.md"),
    "PRIVACY_FILE": str(_ROOT / "CODE_OF_CONDUCT.md"),
    "GOOGLE_CLIENT_ID": "example",
    "GOOGLE_CLIENT_SECRET": "example",
    "GITHUB_CLIENT_ID": "example",
    "GITHUB_CLIENT_SECRET": "example",
    "SIGN_IN_PER_MINUTE": "0",
    "JOIN_PER_MINUTE": "0",
    "OAUTH_PER_MINUTE": "0",
}


@dataclass(frozen=True)
class SampleSite:
    """The content that `create_sample_site` created; with `user_code` a machine asks for consent."""

    owner: owners.Owner
    project: projects.Project
    sample: SampleData
    user_code: str


@dataclass(frozen=True)
class PageCase:
    """A page: the name of its screenshot, its path, and whether it requires signing in."""

    name: str
    path: str
    requires_sign_in: bool


def create_sample_site(db: Database) -> SampleSite:
    """Create an owner with projects, one of them in use, and two linked sign-ins."""
    with db.transaction() as conn:
        sample = sample_data.create_sample_data(conn)
        sample_data.add_credit_usage(conn, sample)
        owner = sample.owner
        owners.set_operator(conn, owner.id, True, actor="cli")
        add_operator_data(conn, sample)
        identities.link_identity(conn, owner, IdentityClaims("https://github.com", "1815", "ada@example.org", "ada"))
        identities.link_identity(
            conn, owner, IdentityClaims("https://accounts.google.com", "42", "ada@lovelace.example", "ada")
        )
        rollups.roll_up_batch(conn, sample.full_project.id)
        user_code = _begin_device_authorization(conn)
    return SampleSite(owner, sample.full_project, sample, user_code)


def _begin_device_authorization(conn: Connection) -> str:
    """Let a machine without a browser ask for consent, until the end of the tests; return its code."""
    client = oauth_clients.store_document(
        conn,
        "https://device.example/oauth/client.json",
        "Build Machine",
        [],
        ttl=timedelta(days=1),
        uses_device_codes=True,
    )
    codes = device_authorizations.begin(conn, client, "https://bus.example.org/mcp", "bus:read bus:write")
    conn.execute("UPDATE device_authorization SET expires_at = expires_at + interval '1 day'")
    return codes.user_code


def add_operator_data(conn: Connection, sample: SampleData) -> None:
    """Add data for the operator console: processes, jobs and their runs, credits, a suspended owner."""
    owner = sample.owner
    credits.add_credits(conn, owner.id, 5_000, reference="invoice-17", actor="cli")
    credits.add_credits(
        conn, owner.id, 250, reference="operator:0011223344556677", kind="grant", reason="for the trouble", actor="cli"
    )
    other = factories.make_owner(conn, "grace")
    owners.suspend(conn, other.id, reason="a token of hers is on a public page", actor="ada")
    shown = {
        "DATABASE_URL": MaskedSetting("postgresql://bus:•••@db.internal/bus", False),
        "PUBLIC_URL": MaskedSetting("https://bus.example.org", False),
        "RATE_PER_MINUTE": MaskedSetting("", True),
        "SECRET_KEY": MaskedSetting("•••", False),
    }
    traffic = {"requests_last_minute": 812, "requests_last_5_minutes": 3977, "errors_last_5_minutes": 2}
    for number, kind in enumerate(("beat", "gateway", "gateway", "web", "worker")):
        figures = {"jobs_last_5_minutes": 141} if kind == "worker" else {} if kind == "beat" else traffic
        process_registry.record_heartbeat(
            conn, f"{number}", kind, pid=4100 + number, uptime_seconds=93_000, settings=shown,
            metrics={**figures, "memory_bytes": 71_000_000},
        )  # fmt: skip
    known = all_jobs().values()
    jobs.register_jobs(
        conn, [jobs.JobDefinition(one.name, one.summary, one.interval, one.min_interval) for one in known]
    )
    for one in known:
        run = jobs.begin_run(conn, one.name)
        failed = one.name == "send_notices"
        error = "JobFailed: notice 12: ConnectTimeout: the receiver did not answer" if failed else None
        jobs.finish_run(conn, run, "failed" if failed else "ok", {"done": 3}, error)
    jobs.request_run(conn, "prune", owner_id=owner.id, actor=owner.handle)


def iter_pages(web: WebApp, site: SampleSite) -> Iterator[PageCase]:
    """Yield every page with a GET route, and an error page.

    Raises:
        LookupError: `route_values` of the sample data lacks a value of an address.
    """
    with web.app.test_request_context():
        for rule in web.app.url_map.iter_rules():
            # The kit consists of files; former addresses redirect; OAuth clients read metadata.
            if (
                rule.endpoint in _SKIPPED_ENDPOINTS
                or rule.endpoint.startswith(("kit.", "moved_addresses.", "oauth_endpoints.", "site_files."))
                or "GET" not in (rule.methods or ())
            ):
                continue
            built = rule.build(_get_route_values(rule, site))
            if built is None:
                raise LookupError(f"{rule.rule}: add the values of its address to tests/webapp/sample_data.py")
            pages = web.app.blueprints.get(rule.endpoint.partition(".")[0])
            private = isinstance(pages, OwnerBlueprint | OperatorBlueprint)
            name = rule.endpoint.replace(".", "-").replace("_", "-")
            yield PageCase(name, built[1], private)
            if rule.arguments == {"project_id"}:
                empty = rule.build({"project_id": site.sample.empty_project.id})
                assert empty is not None
                yield PageCase(f"{name}-empty", empty[1], private)
        yield PageCase("refs-one", web.app.url_for("refs.index", project_id=site.project.id, ref="PR 118"), True)
    consent_request = {
        "response_type": "code",
        "client_id": sample_data.CLIENT_ID,
        "redirect_uri": "http://127.0.0.1:49152/callback",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    yield PageCase("authorize-show", f"/oauth/authorize?{urlencode(consent_request)}", requires_sign_in=True)
    yield PageCase("device-consent", f"/oauth/device?user_code={site.user_code}", requires_sign_in=True)
    yield PageCase("error-404", "/nope", requires_sign_in=False)


def _get_route_values(rule: Rule, site: SampleSite) -> dict[str, Any]:
    known = site.sample.route_values
    missing = rule.arguments - set(known)
    if missing:
        raise LookupError(f"{rule.rule}: add {', '.join(sorted(missing))} to tests/webapp/sample_data.py")
    return {name: known[name] for name in rule.arguments}


def show_one_time_cards(page: Page, address: str, site: SampleSite) -> Iterator[str]:
    """Open each page that is shown once; yields its name while it is open."""
    inside = f"{address}/admin/projects/{site.project.id}"
    page.goto(f"{inside}/participants/{site.sample.route_values['participation_id']}")
    page.get_by_text("Rotate…").click()
    page.get_by_role("button", name="Rotate tokens").click()
    yield "card-token"
    page.goto(f"{inside}/invites/new")
    page.get_by_role("button", name="Create invite").click()
    yield "card-invite"
    page.goto(f"{inside}/settings/")
    page.get_by_text("Add a webhook…").click()
    page.get_by_label("Address").fill("https://hooks.example.org/bus")
    page.get_by_role("button", name="Add webhook").click()
    yield "card-webhook"
