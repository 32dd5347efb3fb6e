"""The change of a handle in the browser: everywhere the new one, and old addresses lead to it."""

from bus.coordination import posts
from bus.db import Database
from bus.tenancy import owners
from tests.factories import make_agent, make_owner
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser

_FORM = "/account/handle/"


def test_the_owner_changes_the_handle(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        make_owner(conn, "taken")
    assert "Change handle" in ada.get("/account/").text
    ada.get(_FORM)
    for handle, message in (("", "Choose a handle."), ("taken", "That handle is taken"), ("a b", "lowercase letters")):
        refused = ada.submit("", handle=handle)
        assert refused.status_code == 422
        assert message in refused.text
    saved = ada.submit("", handle="lovelace")
    assert saved.location == "/account/"
    page = ada.get("/account/").text
    assert "ada stays reserved for you" in page
    assert '<span class="mono">lovelace</span>' in page
    assert '<span class="mono">ada</span>' in ada.get(_FORM).text
    assert "owner.rename" in ada.get("/admin/audit/").text
    # The form sent as it is changes nothing.
    ada.get(_FORM)
    assert ada.submit("", handle="lovelace").location == "/account/"
    assert "stays reserved" not in ada.get("/account/").text


def test_a_former_handle_is_recognised_on_pages_and_redirected_in_addresses(
    ada: Browser, sample: SampleData, db: Database
) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "scribe")
        posts.create(conn, agent.ctx, "Before the change", to_actor="ada")
        owners.rename(conn, sample.owner.id, "lovelace", actor="ada")
    ledger, audit = project_path(sample, "ledger/"), "/admin/audit/"
    moved = ada.get(f"{ledger}?actor=ada/scribe&type=post")
    assert (moved.status_code, moved.location) == (301, f"{ledger}?actor=lovelace/scribe&type=post")
    assert ada.get(f"{audit}?actor=ada").location == f"{audit}?actor=lovelace"
    assert ada.get(f"{project_path(sample, 'tasks/')}?owner=Ada").location.endswith("?owner=lovelace")
    for path in (f"{ledger}?actor=scribe", f"{ledger}?actor=grace/scribe", f"{audit}?actor=cli"):
        assert ada.get(path).status_code == 200, path
    # The event says ada/scribe; the page leaves out the owner's handle, present or former, and shows one colour.
    page = ada.get(f"{ledger}?actor=scribe").text
    assert "scribe" in page
    assert "ada/" not in page.partition("<main")[2]
