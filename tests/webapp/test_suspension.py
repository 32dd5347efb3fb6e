"""The web of a suspended owner: every address that changes something is refused, except those listed here.

A new page that changes something fails here until it is listed in one of the two sets.
"""

from collections.abc import Iterator

import pytest
from werkzeug.routing import Rule

from bus.db import Database
from bus.tenancy import owners
from bus.tenancy.owners import Owner
from tests.assertions import database_checksum
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import Browser, WebApp
from webapp.blueprints import OperatorBlueprint

# They neither cost nor grant: topping up, taking rights away, deleting, signing in and out.
_ALLOWED = {
    "account.end_all_sessions",
    "account.end_session",
    "account.unlink",
    "connected_clients.disconnect",
    "credits.set_threshold",
    "invites.revoke",
    "memberships.leave",
    "memberships.remove",
    "memberships.revoke_invite",
    "memberships.set_role",
    "oauth.start",
    "participants.remove",
    "project_participants.remove",
    "project_participants.revoke",
    "project_participants.revoke_token",
    "project_settings.archive",
    "project_settings.delete",
    "project_settings.remove_ref_pattern",
    "project_settings.remove_webhook",
    "share_links.revoke",
    "sign_in.sign_out",
    "sign_in.use_link",
}
_REFUSED = {
    "accept_invite.accept",
    "accept_invite.join",
    "account.link_proxy",
    "account.use_email",
    "authorize.decide",
    "device.decide",
    "email_links.use_confirmation",
    "handle.save",
    "handoffs.ack",
    "handoffs.create",
    "handoffs.reply",
    "invites.create",
    "leases.release",
    "memberships.create_invite",
    "oauth.start_linking",
    "participants.create",
    "participants.rename",
    "project_participants.add_token",
    "project_participants.create",
    "project_participants.rotate",
    "project_participants.update_participation",
    "project_settings.add_ref_pattern",
    "project_settings.add_webhook",
    "project_settings.rename",
    "project_settings.reopen",
    "project_settings.request_confirmation",
    "project_settings.save",
    "projects.create",
    "share_links.create",
    "sign_up.index",
    "tasks.assign",
    "tasks.create",
    "tasks.resolve",
    "tasks.save",
    "tasks.ship",
    "tasks.start",
}
# Read no cookie, so they do not know a signed-in owner.
_WITHOUT_SESSION = {
    "email_links.use_unsubscription",
    "join.redeem",
    "oauth_endpoints.authorize_device",
    "oauth_endpoints.register",
    "oauth_endpoints.revoke",
    "oauth_endpoints.token",
}
_MESSAGE = "Your account is suspended, so nothing was changed."


def _changing_rules(site: WebApp) -> Iterator[tuple[Rule, str]]:
    for rule in site.app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}):
            yield rule, method


def _is_console(site: WebApp, rule: Rule) -> bool:
    return isinstance(site.app.blueprints.get(rule.endpoint.partition(".")[0]), OperatorBlueprint)


def _path(site: WebApp, rule: Rule, sample: SampleData) -> str:
    values = {"slug": "example", "identity_id": 1, "session_id": 1, "name": "prune", **sample.route_values}
    with site.app.test_request_context():
        built = rule.build({name: values[name] for name in rule.arguments})
    assert built is not None
    return str(built[1])


@pytest.fixture
def suspended(ada: Browser, db: Database, sample: SampleData) -> Browser:
    with db.transaction() as conn:
        owners.suspend(conn, sample.owner.id, reason="abuse", actor="boss")
    return ada


def test_every_address_that_changes_something_has_chosen(site: WebApp) -> None:
    endpoints = {rule.endpoint for rule, _ in _changing_rules(site) if not _is_console(site, rule)}
    assert not _ALLOWED & _REFUSED
    assert endpoints == _ALLOWED | _REFUSED | _WITHOUT_SESSION


def test_what_costs_or_grants_is_refused(site: WebApp, suspended: Browser, db: Database, sample: SampleData) -> None:
    token = suspended.get_csrf_token()
    with db.connection() as conn:
        before = database_checksum(conn)
    for rule, method in _changing_rules(site):
        if rule.endpoint in _REFUSED:
            answer = suspended._open(method, _path(site, rule, sample), data={"csrf_token": token, "name": "more"})
            assert (answer.status_code, _MESSAGE in answer.text) == (403, True), rule
    with db.connection() as conn:
        after = database_checksum(conn)
    assert {name for name in before if before[name] != after[name]} <= {"session"}


def test_what_takes_away_is_not_refused(site: WebApp, suspended: Browser, db: Database, sample: SampleData) -> None:
    for rule, method in _changing_rules(site):
        if rule.endpoint in _ALLOWED:
            with db.connection() as conn:
                suspended.sign_in(conn, sample.owner)
            data = {"csrf_token": suspended.get_csrf_token()}
            answer = suspended._open(method, _path(site, rule, sample), data=data)
            assert _MESSAGE not in answer.text, rule
            assert answer.status_code in (200, 303, 400, 404), rule


def test_pages_and_exports_stay_readable(site: WebApp, suspended: Browser, sample: SampleData) -> None:
    for path in ("/admin/", "/account/", "/audit/", "/credits/", "/participants/"):
        assert suspended.get(path).status_code in (200, 303, 308, 404), path
    inside = f"/admin/projects/{sample.full_project.id}"
    for path in ("", "/ledger/", "/ledger/export.csv", "/ledger/export.jsonl", "/insights/report.html", "/board/"):
        assert suspended.get(f"{inside}{path}").status_code in (200, 308), path


def test_a_suspended_owner_deletes_a_project(suspended: Browser, sample: SampleData, db: Database) -> None:
    page = f"/admin/projects/{sample.full_project.id}/settings/"
    suspended.get(page)
    answer = suspended.submit(f"{page}delete", confirm=sample.full_project.name)
    assert answer.status_code == 303
    assert suspended.get(page).status_code == 404


def test_a_suspended_operator_has_no_console(
    site: WebApp, operator_browser: Browser, boss: Owner, db: Database
) -> None:
    token = operator_browser.get_csrf_token()
    assert operator_browser.get("/operator/").status_code == 200
    with db.transaction() as conn:
        owners.suspend(conn, boss.id, reason="abuse", actor="cli")
        before = conn.fetch_one("SELECT count(*) FROM audit")
    for rule in site.app.url_map.iter_rules():
        if _is_console(site, rule):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                with site.app.test_request_context():
                    built = rule.build(
                        {name: "prune" if name == "name" else 1 for name in rule.arguments} | {"ending": "csv"}
                    )
                assert built is not None
                answer = operator_browser._open(method, built[1], data={"csrf_token": token})
                assert answer.status_code == 404, rule
    assert "Operator" not in operator_browser.get("/admin/").text
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM audit") == before
        owners.lift_suspension(conn, boss.id, actor="cli")
    assert operator_browser.get("/operator/").status_code == 200
