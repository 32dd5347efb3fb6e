"""An owner with something of everything, and the address of every page there is, for those who look at all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page
from werkzeug.routing import Rule

from bus.analytics import rollups
from bus.auth import identities
from bus.auth.identities import Claim
from bus.billing import credits
from bus.config.redaction import Setting
from bus.db import Connection, Database
from bus.operations import jobs, process_registry
from bus.tenancy import owners, projects
from tests import factories
from tests.webapp import sample_data
from tests.webapp.sample_data import World
from tests.webapp.web_client import Web
from webapp.blueprints import OperatorPages, Pages
from workers.job_runner import all_jobs

# They are asked by machines, or are files; what is shown once is come by with `cards`.
_SKIPPED = {
    "static",
    "health.healthz",
    "health.readyz",
    "metrics.index",
    "stats.index",
    "vouching.callback",
    "ledger.export_csv",
    "ledger.export_jsonl",
    "pictures.report_file",
    "credits.entries_csv",
    "operator_audit.export",
    "cards.show",
    "board.stream",
}
# What turns features on that have pages or parts of pages.
ENV = {
    "TERMS_URL": "https://example.org/terms",
    "PRIVACY_URL": "https://example.org/privacy",
    "GOOGLE_CLIENT_ID": "example",
    "GOOGLE_CLIENT_SECRET": "example",
    "GITHUB_CLIENT_ID": "example",
    "GITHUB_CLIENT_SECRET": "example",
    "SIGN_IN_PER_MINUTE": "0",
    "JOIN_PER_MINUTE": "0",
}


@dataclass(frozen=True)
class Example:
    """What `fill` made."""

    owner: owners.Owner
    project: projects.Project
    world: World


@dataclass(frozen=True)
class Shown:
    """A page: what to call its picture, where it is, and whether one has to be signed in."""

    name: str
    path: str
    private: bool


def fill(db: Database) -> Example:
    """Make an owner with projects, one of them at work, and two linked sign-ins."""
    with db.write() as conn:
        world = sample_data.fill(conn)
        sample_data.spend(conn, world)
        owner = world.owner
        owners.set_operator(conn, owner.id, True)
        operated(conn, world)
        identities.link(conn, owner, Claim("https://github.com", "1815", "ada@example.org", "ada"))
        identities.link(conn, owner, Claim("https://accounts.google.com", "42", "ada@lovelace.example", "ada"))
        rollups.count(conn, world.full.id)
    return Example(owner, world.full, world)


def operated(conn: Connection, world: World) -> None:
    """What an operator looks at: processes that report themselves, jobs and their runs, credits, a suspended owner."""
    owner = world.owner
    credits.add(conn, owner.id, 5_000, reference="invoice-17")
    credits.add(conn, owner.id, 250, reference="operator:0011223344556677", kind="grant", reason="for the trouble")
    other = factories.make_owner(conn, "grace")
    owners.suspend(conn, other.id, reason="a token of hers is on a public page", actor="ada")
    shown = {
        "DATABASE_URL": Setting("postgresql://bus:•••@db.internal/bus", False),
        "PUBLIC_URL": Setting("https://bus.example.org", False),
        "RATE_PER_MINUTE": Setting("", True),
        "SECRET_KEY": Setting("•••", False),
    }
    traffic = {"requests_last_minute": 812, "requests_last_5_minutes": 3977, "errors_last_5_minutes": 2}
    for number, kind in enumerate(("beat", "gateway", "gateway", "web", "worker")):
        figures = {"jobs_last_5_minutes": 141} if kind == "worker" else {} if kind == "beat" else traffic
        process_registry.report(
            conn, f"{number}", kind, pid=4100 + number, uptime=93_000, settings=shown,
            figures={**figures, "memory_bytes": 71_000_000},
        )  # fmt: skip
    known = all_jobs().values()
    jobs.announce(conn, [jobs.Known(one.name, one.about, one.every, one.rest) for one in known])
    for one in known:
        run = jobs.begin(conn, one.name)
        failed = one.name == "send_notices"
        error = "JobFailed: notice 12: ConnectTimeout: the receiver did not answer" if failed else None
        jobs.finish(conn, run, "failed" if failed else "ok", {"done": 3}, error)
    jobs.ask(conn, "prune", owner_id=owner.id, actor=owner.handle)


def every_page(web: Web, example: Example) -> Iterator[Shown]:
    """Every page that answers a GET, found in the application itself, and the page of an error.

    Raises:
        LookupError: an address needs something that `_values` does not know yet.
    """
    with web.app.test_request_context():
        for rule in web.app.url_map.iter_rules():
            # The kit is files for programs.
            if rule.endpoint in _SKIPPED or rule.endpoint.startswith("kit.") or "GET" not in (rule.methods or ()):
                continue
            built = rule.build(_values(rule, example))
            if built is None:
                raise LookupError(f"{rule.rule}: say in tests/webapp/page_catalog.py what its address needs")
            pages = web.app.blueprints.get(rule.endpoint.partition(".")[0])
            private = isinstance(pages, Pages | OperatorPages)
            name = rule.endpoint.replace(".", "-").replace("_", "-")
            yield Shown(name, built[1], private)
            if rule.arguments == {"project_id"}:
                empty = rule.build({"project_id": example.world.empty.id})
                assert empty is not None
                yield Shown(f"{name}-empty", empty[1], private)
    yield Shown("error-404", "/nope", private=False)


def _values(rule: Rule, example: Example) -> dict[str, Any]:
    known = example.world.values
    missing = rule.arguments - set(known)
    if missing:
        raise LookupError(f"{rule.rule}: say in tests/webapp/page_catalog.py what {', '.join(sorted(missing))} may be")
    return {name: known[name] for name in rule.arguments}


def cards(page: Page, address: str, example: Example) -> Iterator[str]:
    """Make each card that is shown once, signed in; yields its name while the page shows it."""
    inside = f"{address}/admin/projects/{example.project.id}"
    page.goto(f"{inside}/members/{example.world.values['participation_id']}")
    page.get_by_text("Rotate …").click()
    page.get_by_role("button", name="Rotate and show the new token").click()
    yield "card-token"
    page.goto(f"{inside}/invites/new")
    page.get_by_role("button", name="Make the invite").click()
    yield "card-invite"
    page.goto(f"{inside}/settings/")
    page.get_by_text("Add a webhook").click()
    page.get_by_label("Address").fill("https://hooks.example.org/bus")
    page.get_by_role("button", name="Add and show the secret").click()
    yield "card-webhook"
