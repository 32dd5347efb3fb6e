"""The insights pages: charts that agree with the ledger, and the self-contained report."""

import re
from html.parser import HTMLParser

from bus.analytics import rollups
from bus.analytics.project_metrics import PERIODS
from bus.db import Database
from bus.tenancy import projects
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser


class _Tables(HTMLParser):
    """The cells of the tables of a page, by caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._within: list[str] = []
        self._caption = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("caption", "td", "th", "svg"):
            self._within.append(tag)
        if tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._within[-1:] == [tag]:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within[-1:] == ["caption"]:
            self._caption += data
        elif self._within[-1:] in (["td"], ["th"]):
            self.tables[self._caption][-1][-1] += data.strip()


def _count(db: Database, sample: SampleData) -> None:
    with db.transaction() as conn:
        rollups.roll_up_batch(conn, sample.full_project.id)


def _tables(page: str) -> dict[str, list[list[str]]]:
    # The marks of participants are decoration.
    return _Tables(re.sub(r'<span class="avatar[^>]*>[^<]*</span> ', "", page)).tables


def test_the_charts_agree_with_the_ledger(ada: Browser, sample: SampleData, db: Database) -> None:
    assert "Preparing insights" in ada.get(project_path(sample, "insights/")).text
    _count(db, sample)
    with db.connection() as conn:
        types: dict[str, int] = dict(
            conn.fetch_all(
                "SELECT type, count(*) FROM event WHERE project_id = %s GROUP BY 1", (sample.full_project.id,)
            )
        )
        posts, refs, acked = conn.fetch_one(
            "SELECT count(*), count(ref), count(acked_at) FROM post WHERE project_id = %s", (sample.full_project.id,)
        )
        leases: dict[str, str] = dict(
            conn.fetch_all(
                "SELECT payload ->> 'surface', payload ->> 'contended' FROM event"
                " WHERE project_id = %s AND type = 'lease'",
                (sample.full_project.id,),
            )
        )
        (deliveries,) = conn.fetch_one(
            "SELECT count(*) FROM delivery WHERE project_id = %s AND wake IS NOT NULL", (sample.full_project.id,)
        )
    events = sum(types.values())
    for period in PERIODS:
        page = ada.get(project_path(sample, f"insights/?period={period}"))
        assert page.status_code == 200
        assert re.search(r"<a [^>]*period=" + period + r'"\s+aria-current="true"', page.text)
        assert f"{events} events" in page.text
        assert f"{acked} of {posts} handoffs acknowledged" in page.text
        tables = _tables(page.text)
        head, *rows = tables["Events by type"]
        assert [sum(int(row[at]) for row in rows) for at in range(1, len(head))][-1] == events
        assert head[1:3] == ["tasks created", "handoffs"]
        assert [sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)] == [
            types["task_create"],
            types["post"],
        ]
        for caption, counts in (("Handoffs and acknowledgements", acked), ("Handoffs with a reference", refs)):
            rows = tables[caption][1:]
            assert [sum(int(row[at]) for row in rows) for at in (1, 2)] == [posts, counts]
        surfaces = {name: contended for name, _, contended in tables["Leases by surface"][1:]}
        assert surfaces == leases
        for caption in ("Time until seen by reachability", "Time until seen by client"):
            assert sum(int(row[1]) for row in tables[caption][1:]) == deliveries
            assert len(tables[caption][0]) == len(tables[caption][1]) == 8
        assert [row[0] for row in tables["Time until seen by client"][1:]] == ["Unknown client"]
        head, *rows = tables["Handoffs by sender and recipient"]
        assert {row[0] for row in rows} == {"api-agent", "review-agent", "ada", "carol"}
        cell = next(row for row in rows if row[0] == "api-agent")[head.index("lane review")]
        assert cell == "1"
    assert f"Includes all {events} events of the project." in page.text
    # An unknown period is replaced by the default: a day for a ledger that began today, else a week.
    assert 'period=24h" aria-current="true"' in ada.get(project_path(sample, "insights/?period=nonsense")).text
    empty = f"/admin/projects/{sample.empty_project.id}/insights/"
    assert 'period=7d" aria-current="true"' in ada.get(empty).text


def test_empty_insights_say_what_will_appear(ada: Browser, sample: SampleData, db: Database) -> None:
    page = ada.get(f"/admin/projects/{sample.empty_project.id}/insights/").text
    assert "No insights yet" in page
    assert f"/admin/projects/{sample.empty_project.id}/participants/new" in page
    _count(db, sample)
    with db.connection() as conn:
        conn.raw.execute("DELETE FROM tally WHERE figure <> 'events'")
        conn.raw.execute("DELETE FROM tally WHERE key = 'post'")
    page = ada.get(project_path(sample, "insights/?period=7d")).text
    assert "No handoffs in the last 7 days" in page
    assert "No leases in the last 7 days" in page
    assert "Time until seen" not in page
    with db.connection() as conn:
        conn.raw.execute("UPDATE tally SET start = start - interval '40 days'")
    assert "No events in the last 7 days" in ada.get(project_path(sample, "insights/?period=7d")).text
    assert "No events in" not in ada.get(project_path(sample, "insights/?period=90d")).text


def test_the_report_is_a_page_and_a_self_contained_file(ada: Browser, sample: SampleData, db: Database) -> None:
    _count(db, sample)
    page = ada.get(project_path(sample, "insights/report"))
    tables = _tables(page.text)
    assert ["post", "5", "17.9%"] in tables["Events by type"]
    assert ["acknowledged by another participant", "1", "20.0%"] in tables["Handoffs"]
    reachability = tables["Time until seen and acknowledged, by reachability"]
    assert [row[0] for row in reachability] == ["Recipient reachable", "At its next turn"]
    file = ada.get(project_path(sample, "insights/report.html"))
    assert re.fullmatch(
        rf'attachment; filename="llm-bus-report-{sample.full_project.id}-\d{{4}}-\d\d-\d\d\.html"',
        file.headers["Content-Disposition"],
    )
    text = file.text
    assert tables["Handoffs"] == _tables(text)["Handoffs"]
    assert text.count("<svg") > 5
    # No scripts, no external resources, no links, no tokens.
    for forbidden in ("<script", "<link", "href=", "src=", "url(", "@import", "http://", "https://", "csrf"):
        assert forbidden not in text, forbidden
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    # The content of handoffs is not part of it.
    assert "copy of production" not in text
    with db.transaction() as conn:
        projects.archive(conn, sample.full_project.id, actor="test")
    for address in ("insights/", "insights/report", "insights/report.html"):
        assert ada.get(project_path(sample, address)).status_code == 200


def test_a_report_appears_when_it_is_ready(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.connection() as conn:
        conn.raw.execute(
            "INSERT INTO report (project_id, busy_until) VALUES (%s, clock_timestamp() + interval '1 minute')",
            (sample.full_project.id,),
        )
    waiting = ada.get(project_path(sample, "insights/report")).text
    assert "Preparing report" in waiting
    assert f'data-live="{project_path(sample, "insights/report")}"' in waiting
    assert ada.get(project_path(sample, "insights/report.html")).status_code == 200
    with db.connection() as conn:
        conn.raw.execute("UPDATE report SET busy_until = NULL")
    part = ada.get(project_path(sample, "insights/report"), headers={"X-Part": "1"}).text
    assert "Leases, claims, tasks" in part
    assert "<html" not in part
