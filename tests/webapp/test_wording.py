"""Words of the pages: one for each thing, English throughout, and no path of a document that is not a link."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import webapp
from bus.coordination import leases, posts, presence, surfacing
from bus.db import Database
from bus.tenancy import audit, invite_redemption, invites
from tests.factories import make_agent, make_project
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser, WebApp
from webapp import templating

_ROOT = Path(webapp.__file__).resolve().parents[1]
# Phrases that the pages had before, each for a kind of mistake: docs/style.md lists others, which lint refuses.
_REFUSED = re.compile(
    r"\blet (?:in|others in)\b|(?<![\w-])acked(?![\w\"'-])|away since|no longer asked|[0-9}] %(?![}\w])|in no lane"
    r"|out of touch|Hand over\b",
    re.IGNORECASE,
)
# A document is named by a link, or by its title.
_DOCUMENT_PATH = re.compile(r"\bdocs/(?:howto|reference|explanation|tutorials|glossary)")


def _shown_texts() -> Iterator[tuple[str, str]]:
    """The templates without their code, and the literals of the modules of the pages."""
    for path in sorted((_ROOT / "templates").rglob("*.html")):
        source = re.sub(r"\{#.*?#\}", "", path.read_text(), flags=re.S)
        # Literals of expressions are shown too; names of variables, classes and states are not.
        text = re.sub(r"\{[{%].*?[}%]\}", lambda match: " ".join(re.findall(r'"([^"]* [^"]*)"', match[0])), source)
        yield str(path.relative_to(_ROOT)), re.sub(r"<[^>]*>", " ", text)
    for path in sorted((_ROOT / "webapp").rglob("*.py")):
        literals = re.findall(
            r'"((?:[^"\\\n]|\\.)* (?:[^"\\\n]|\\.)*)"', re.sub(r'""".*?"""', "", path.read_text(), flags=re.S)
        )
        yield str(path.relative_to(_ROOT)), re.sub(r"\{[^{}]*\}", "", "\n".join(literals))


def test_no_page_has_a_refused_phrase() -> None:
    found = [(name, match[0]) for name, text in _shown_texts() for match in _REFUSED.finditer(text)]
    assert found == []


def test_no_page_names_a_document_by_its_path() -> None:
    found = [(name, match[0]) for name, text in _shown_texts() for match in _DOCUMENT_PATH.finditer(text)]
    assert found == []


def test_a_handoff_has_one_word_for_its_state_on_every_page(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        sender = make_agent(conn, sample.full_project, "from-here")
        # Several recipients, whose states are listed one by one.
        reader, _ = (make_agent(conn, sample.full_project, label, lane="pair") for label in ("first", "second"))
        seen = posts.create(conn, sender.ctx, "Look at it", to_lane="pair", subject="The seen one")
        posts.create(conn, sender.ctx, "Look too", to_lane="empty-lane", subject="The lonely one")
        surfacing.mark_surfaced(conn, {(sample.full_project.id, reader.ctx.participation_id, seen.post_id): 0.0})
    for path in (f"handoffs/{seen.post_id}", "handoffs/", "board/", "ledger/"):
        page = ada.get(project_path(sample, path)).text.partition("<main")[2]
        assert not re.search(r">[^<]*(surfaced|queued)[^<]*<", page), path
    assert re.search(r"</svg>seen<", ada.get(project_path(sample, f"handoffs/{seen.post_id}")).text)
    assert "no one in this lane" in ada.get(project_path(sample, "handoffs/")).text


def test_the_landing_page_does_not_take_an_ack_for_a_receipt(stranger: Browser) -> None:
    page = stranger.get("/").text
    assert "carol acknowledges it" in page
    assert "has read it" not in page


def test_waiting_for_the_first_call_names_all_and_offers_no_new_token(site: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo")
        for label in ("alice", "bob"):
            make_agent(conn, project, label)
        owner = conn.fetch_one("SELECT handle FROM owner WHERE id = %s", (project.owner_id,))[0]
    with db.connection() as conn:
        from bus.tenancy import owners

        browser = site.new_browser().sign_in(conn, owners.get(conn, owner))
    page = browser.get(f"/admin/projects/{project.id}/").text
    assert (
        "Waiting for alice and bob. Their first call" in page or "Waiting for bob and alice. Their first call" in page
    )
    assert "New token" not in page


def test_a_participant_that_left_is_said_to_be_seen_last(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "gone-away", lane="attic")
        presence.register(conn, agent.ctx, lane="attic")
        conn.execute("UPDATE presence SET last_seen = clock_timestamp() - interval '2 hours' WHERE lane = 'attic'")
    page = ada.get(project_path(sample, "participants/")).text
    assert re.search(r"last seen <time[^>]*>2 hours ago</time>", page)


def test_the_audit_log_shows_words_and_not_values_of_python(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        audit.record(conn, sample.owner.id, "cli", "owner.operator", "ada", operator=True, lane=None, note="")
    page = ada.get("/admin/audit/?action=owner.operator").text
    assert '<span class="muted small">operator</span>' in page
    assert "True" not in page
    assert "None" not in page.partition("<main")[2]
    assert "`" not in ada.get("/account/").text


def test_an_invite_without_uses_left_is_used(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        code = invites.create_for_owner(conn, sample.full_project.id, participant_name="visitor", actor="ada").code
        invite_redemption.redeem(conn, code, name=None)
    page = ada.get(project_path(sample, "invites/")).text
    assert ">used</span>" in page
    assert "exhausted" not in page


def test_an_agent_without_a_token_is_no_warning(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.empty_project, "finished")
        conn.execute("UPDATE token SET revoked_at = clock_timestamp() WHERE id = %s", (agent.ctx.token_id,))
    page = ada.get(f"/admin/projects/{sample.empty_project.id}/participants/").text.partition("<main")[2]
    assert '<span class="muted">none</span>' in page
    assert "badge warn" not in page


def test_a_contended_lease_is_one_word_beside_its_surface(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        for label in ("left", "right"):
            leases.acquire(conn, make_agent(conn, sample.full_project, label).ctx, "src/shared.py")
    assert "contended" in ada.get(project_path(sample, "leases/")).text


def test_the_time_of_day_names_its_zone() -> None:
    shown = templating.clock_time(datetime(2026, 1, 31, 9, 5, 7, tzinfo=UTC))
    # The script replaces it by the viewer's time, with the viewer's zone.
    assert shown == '<time datetime="2026-01-31T09:05:07+00:00" data-clock>09:05:07 UTC</time>'


@pytest.mark.parametrize("status", [429, 503])
def test_a_page_that_works_again_soon_has_a_button_for_it(make_web: Callable[..., WebApp], status: int) -> None:
    web = make_web()
    with web.app.test_request_context("/"):
        from webapp.errors import render_error_page

        page = render_error_page(status).get_data(as_text=True)
    assert re.search(r'<a class="button main" href="">Try again</a>', page)
