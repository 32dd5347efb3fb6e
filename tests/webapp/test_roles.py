"""Every route of the web by the role of the person who asks: a new route fails here until it is classified."""

import html
import re
from collections.abc import Iterator

import pytest
from werkzeug.routing import Rule

from bus.db import Database
from bus.rules.member_rights import RIGHTS, Right, has_right
from bus.tenancy.owners import Owner
from tests.assertions import database_checksum
from tests.factories import make_member, make_owner
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import Browser, WebApp
from webapp.blueprints import OperatorBlueprint, OwnerBlueprint, ProjectBlueprint, required_right

# The right in a project that each of its views asks for.
_RIGHTS: dict[Right, set[str]] = {
    "view": {
        "board.index",
        "board.stream",
        "handoffs.index",
        "handoffs.show",
        "insights.index",
        "insights.report",
        "insights.report_file",
        "leases.index",
        "ledger.export_csv",
        "ledger.export_jsonl",
        "ledger.index",
        "ledger.show",
        "memberships.index",
        "memberships.leave",
        "moved_addresses.insights",
        "moved_addresses.participants",
        "moved_addresses.participation",
        "moved_addresses.report",
        "moved_addresses.report_file",
        "overview.index",
        "project_participants.connection_status",
        "project_participants.index",
        "project_participants.show",
        "refs.index",
        "sequences.index",
        "tasks.index",
        "tasks.show",
    },
    "act": {
        "handoffs.ack",
        "handoffs.create",
        "handoffs.new",
        "handoffs.reply",
        "moved_addresses.new_participant",
        # Of one's own participants; of others, the engine asks for the role that manages their owner.
        "project_participants.add_token",
        "project_participants.create",
        "project_participants.new",
        "project_participants.remove",
        "project_participants.revoke",
        "project_participants.revoke_token",
        "project_participants.rotate",
        "project_participants.update_participation",
        "tasks.assign",
        "tasks.create",
        "tasks.edit",
        "tasks.new",
        "tasks.resolve",
        "tasks.save",
        "tasks.ship",
        "tasks.start",
    },
    "manage_participants": {
        "leases.release",
        "memberships.create_invite",
        "memberships.remove",
        "memberships.revoke_invite",
        "memberships.set_role",
        "project_audit.index",
    },
    "manage_project": {
        "invites.create",
        "invites.index",
        "invites.new",
        "invites.revoke",
        "project_settings.add_ref_pattern",
        "project_settings.add_webhook",
        "project_settings.archive",
        "project_settings.delete",
        "project_settings.index",
        "project_settings.remove_ref_pattern",
        "project_settings.remove_webhook",
        "project_settings.rename",
        "project_settings.reopen",
        "project_settings.request_confirmation",
        "project_settings.save",
        "share_links.create",
        "share_links.index",
        "share_links.revoke",
    },
}
# For each signed-in person, about their own account and what belongs to it, or about an invite.
_OWN = {
    "accept_invite",
    "account",
    "audit",
    "authorize",
    "connected_clients",
    "credentials",
    "credits",
    "device",
    "handle",
    "inbox",
    "participants",
    "projects",
    "search",
}
# For visitors too; their tests say what they show.
_PUBLIC = {
    "documentation",
    "email_links",
    "health",
    "join",
    "kit",
    "landing",
    "legal",
    "metrics",
    "oauth",
    "oauth_endpoints",
    "shared_board",
    "sign_in",
    "sign_up",
    "site_files",
    "static",
    "stats",
}
# Views after which the ids of the sample exist no more, in this order.
_LAST = (
    "project_participants.remove",
    "memberships.remove",
    "project_settings.archive",
    "project_settings.reopen",
    "memberships.leave",
    "project_settings.delete",
)
_ROLES = ("none", "viewer", "member", "lead", "owner")


def _project_rules(site: WebApp) -> Iterator[tuple[Rule, str, Right]]:
    for rule in site.app.url_map.iter_rules():
        blueprint = site.app.blueprints.get(rule.endpoint.partition(".")[0])
        if isinstance(blueprint, ProjectBlueprint):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, required_right(blueprint, site.app.view_functions[rule.endpoint], method)


def _path(site: WebApp, rule: Rule, sample: SampleData) -> str:
    with site.app.test_request_context():
        built = rule.build({name: sample.route_values[name] for name in rule.arguments})
    assert built is not None
    return str(built[1])


def _sign_in(site: WebApp, db: Database, sample: SampleData, role: str) -> tuple[Browser, Owner]:
    with db.transaction() as conn:
        if role == "owner":
            person = sample.owner
        elif role == "none":
            person = make_owner(conn, "nele")
        else:
            person = make_member(conn, sample.full_project, role, "nele")
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, person), person


def test_every_route_is_classified(site: WebApp) -> None:
    rights: dict[Right, set[str]] = {right: set() for right in RIGHTS}
    for rule, _, right in _project_rules(site):
        rights[right].add(rule.endpoint)
    assert rights == _RIGHTS
    own: set[str] = set()
    public: set[str] = set()
    for rule in site.app.url_map.iter_rules():
        name = rule.endpoint.partition(".")[0]
        blueprint = site.app.blueprints.get(name)
        if isinstance(blueprint, ProjectBlueprint | OperatorBlueprint):
            continue
        (own if isinstance(blueprint, OwnerBlueprint) else public).add(name)
    assert own == _OWN
    assert public == _PUBLIC


@pytest.mark.parametrize("role", _ROLES)
def test_a_role_opens_what_it_includes_and_nothing_else(
    site: WebApp, db: Database, sample: SampleData, role: str
) -> None:
    browser, _ = _sign_in(site, db, sample, role)
    token = browser.get_csrf_token()
    allowed: list[tuple[Rule, str]] = []
    browser.get("/admin/")
    with db.connection() as conn:
        before = database_checksum(conn)
    for rule, method, right in _project_rules(site):
        if has_right(None if role == "none" else role, right):
            allowed.append((rule, method))
            continue
        answer = browser._open(
            method, _path(site, rule, sample), data=None if method == "GET" else {"csrf_token": token}
        )
        assert answer.status_code == (404 if role == "none" else 403), (method, rule)
        assert (f"Your role in this project is {role}" in answer.text) == (role != "none")
    with db.connection() as conn:
        after = database_checksum(conn)
    # Sessions record their last use.
    assert {name for name in before if before[name] != after[name]} <= {"session"}
    for rule, method in sorted(allowed, key=_order):
        data = None if method == "GET" else {"csrf_token": token, "confirm": sample.full_project.name}
        answer = browser._open(method, _path(site, rule, sample), data=data)
        if rule.endpoint == "project_settings.request_confirmation" or (
            rule.endpoint == "project_participants.connection_status" and role != "owner"
        ):
            # The sample has no such address; the token is another owner's.
            assert answer.status_code == 404
        else:
            assert answer.status_code in (200, 204, 302, 303, 308, 400), (method, rule, answer.status_code)


def _order(entry: tuple[Rule, str]) -> tuple[int, str]:
    endpoint = entry[0].endpoint
    return (_LAST.index(endpoint) + 1 if endpoint in _LAST else 0, endpoint)


@pytest.mark.parametrize("role", _ROLES)
def test_pages_offer_what_the_role_includes(site: WebApp, db: Database, sample: SampleData, role: str) -> None:
    """Each link and form of a project's pages is one that the viewer may use."""
    browser, _ = _sign_in(site, db, sample, role)
    if role == "none":
        assert "apollo" not in browser.get("/admin/projects/").text
        return
    adapter = site.app.url_map.bind("bus.example.org")
    pages = [rule for rule, method, right in _project_rules(site) if method == "GET" and has_right(role, right)]
    offered: set[str] = set()
    for rule in pages:
        if rule.endpoint in ("board.stream", "project_participants.connection_status"):
            continue
        page = browser.get(_path(site, rule, sample))
        for method, address in page_targets(page.text):
            prefix = f"/admin/projects/{sample.full_project.id}/"
            if address.startswith(prefix):
                endpoint, _ = adapter.match(address, method)
                offered.add(endpoint)
    refused = {endpoint for right, endpoints in _RIGHTS.items() if not has_right(role, right) for endpoint in endpoints}
    assert offered & refused == set()
    assert {"handoffs.show", "tasks.show"} <= offered
    assert ("handoffs.ack" in offered) == has_right(role, "act")
    assert ("memberships.create_invite" in offered) == has_right(role, "manage_participants")
    assert ("project_settings.index" in offered) == has_right(role, "manage_project")


def page_targets(page: str) -> set[tuple[str, str]]:
    """The addresses of a page's links and forms, with their methods, without queries."""
    targets: set[tuple[str, str]] = set()
    for tag, attributes in re.findall(r"<(a|form|button)\b([^>]*)>", page):
        address = re.search(r'\b(?:href|action|formaction)="([^"]*)"', attributes)
        if address is not None:
            method = "GET" if tag == "a" or 'method="get"' in attributes else "POST"
            targets.add((method, re.split("[?#]", html.unescape(address[1]))[0]))
    return targets
