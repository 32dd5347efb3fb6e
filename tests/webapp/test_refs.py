"""References in the pages: patterns in the settings, links in texts, and the page of one reference."""

import re

from bus.coordination import leases, posts, tasks
from bus.db import Connection, Database
from bus.tenancy import ref_patterns
from tests.factories import Agent, make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser

_PATTERN, _ADDRESS = r"PR[- ](\d+)", "https://github.com/acme/shop/pull/$1"


def _add_pattern(db: Database, sample: SampleData) -> None:
    with db.transaction() as conn:
        ref_patterns.add_pattern(conn, sample.full_project.id, _PATTERN, _ADDRESS, actor="ada")


def _agent(conn: Connection, sample: SampleData) -> Agent:
    return make_agent(conn, sample.full_project)


def test_patterns_are_edited_on_the_settings_page(ada: Browser, sample: SampleData) -> None:
    settings = project_path(sample, "settings/")
    ada.get(settings)
    refused = ada.submit(f"{settings}references", pattern="PR-(", address=_ADDRESS)
    assert refused.status_code == 400
    assert "Pattern is not valid in RE2 (missing )" in refused.text
    assert 'value="PR-("' in refused.text
    refused = ada.submit(f"{settings}references", pattern=_PATTERN, address="javascript:alert(1)")
    assert "Link must begin with https://" in refused.text
    ada.submit(f"{settings}references", pattern=_PATTERN, address=_ADDRESS)
    page = ada.get(settings).text
    assert f"<code>{_PATTERN}</code>" in page
    assert "pattern PR[- ](\\d+) exists already" in ada.submit(
        f"{settings}references", pattern=_PATTERN, address=_ADDRESS
    ).text.replace("Pattern PR", "pattern PR")
    ada.get(settings)
    ada.submit(f"{settings}references/remove", pattern=_PATTERN)
    assert f"<code>{_PATTERN}</code>" not in ada.get(settings).text
    log = ada.get(project_path(sample, "audit/")).text
    assert "ref_pattern.add" in log
    assert "ref_pattern.remove" in log


def test_a_handoff_links_to_what_it_names(ada: Browser, sample: SampleData, db: Database) -> None:
    _add_pattern(db, sample)
    text = "**Ready**: PR-142, task 1, ADR-0042, #1, `src/orders/` and https://example.org/a."
    with db.transaction() as conn:
        post_id = posts.create(conn, _agent(conn, sample).ctx, text, to_lane="core", ref="PR 142").post_id
    page = ada.get(project_path(sample, f"handoffs/{post_id}")).text
    body = page.partition('<div class="body">')[2].partition("</div>")[0]
    assert "<strong>Ready</strong>" in body
    inside = project_path(sample).rstrip("/")
    assert re.findall('href="([^"]*)"', body) == [
        "https://github.com/acme/shop/pull/142",
        f"{inside}/tasks/1",
        f"{inside}/refs/?ref=ADR-0042",
        f"{inside}/ledger/1",
        f"{inside}/leases/?surface=src/orders/",
        "https://example.org/a",
    ]
    assert f'<a class="ref" href="{inside}/refs/?ref=PR+142">PR 142</a>' in page
    assert 'aria-label="Open PR 142"' in page
    for address in re.findall(f'href="({inside}[^"]*)"', body):
        assert ada.get(address.replace("&amp;", "&")).status_code == 200, address


def test_the_page_of_a_reference_shows_everything_about_it(ada: Browser, sample: SampleData, db: Database) -> None:
    _add_pattern(db, sample)
    with db.transaction() as conn:
        agent = _agent(conn, sample)
        for ref in ("PR-7", "https://github.com/acme/shop/pull/7", "PR-8"):
            posts.create(conn, agent.ctx, "x", to_lane="core", subject=f"About {ref}", ref=ref)
        task = tasks.create(conn, agent.ctx, "Seventh task").task_id
        tasks.start(conn, agent.ctx, task)
        tasks.ship(conn, agent.ctx, task, ref="PR-7")
        leases.acquire(conn, agent.ctx, "docs/a.md")
    page = ada.get(project_path(sample, "refs/?ref=PR-7")).text
    assert "About PR-7" in page
    assert "About https://github.com/acme/shop/pull/7" in page
    assert "About PR-8" not in page
    assert "Seventh task" in page
    assert '<a href="https://github.com/acme/shop/pull/7"' in page
    assert "claimed" in ada.get(project_path(sample, "refs/?ref=ADR-42")).text
    assert "docs/a.md" in ada.get(project_path(sample, "refs/?ref=docs/")).text
    assert "has this reference" in ada.get(project_path(sample, "refs/?ref=PR-9")).text
    listed = ada.get(project_path(sample, "refs/")).text
    assert "ref=PR-8" in listed
    assert "No references yet" in ada.get(f"/admin/projects/{sample.empty_project.id}/refs/").text


def test_any_text_as_reference_gets_an_answer(ada: Browser, sample: SampleData) -> None:
    for ref in ("../..", "a\u202eb", "x" * 300, "src/{a,b", "%00", "ADR-99999999999999999999", "<b>", "a b/c"):
        answer = ada.get(project_path(sample, "refs/"), query_string={"ref": ref})
        assert answer.status_code == 200, ref
        assert "<b>" not in answer.text
