"""Import of an archive of mcp_agent_mail."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.coordination import leases, posts
from bus.db import Database
from bus.errors import InvalidArgument
from bus.imports import agent_mail
from bus.imports.agent_mail import AgentMailReport
from bus.rules.token_format import fingerprint
from bus.tenancy import tokens
from bus.tenancy.projects import Project
from tests.factories import make_project


def _write_message(folder: Path, message_id: str, created: str, body: str, **fields: object) -> None:
    path = folder / "messages" / created[:4] / created[5:7] / f"{message_id}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"id": message_id, "from": "GreenCastle", "to": ["BlueLake"], "created": created, **fields}
    path.write_text(f"---json\n{json.dumps(header)}\n---\n\n{body}\n")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in ("GreenCastle", "BlueLake"):
        (tmp_path / "agents" / name).mkdir(parents=True)
        (tmp_path / "agents" / name / "profile.json").write_text("{}")
    _write_message(tmp_path, "msg-1", "2025-10-23T15:22:14+00:00", "# Plan", subject="Build plan", thread_id="TKT-1")
    _write_message(
        tmp_path, "msg-2", "2025-10-24T08:00:00", "Fine.",
        **{"from": "BlueLake", "to": ["GreenCastle"], "cc": ["RedHill"], "thread_id": "TKT-1"},
    )  # fmt: skip
    (tmp_path / "messages" / "threads").mkdir()
    (tmp_path / "messages" / "threads" / "TKT-1.md").write_text("# Thread TKT-1")
    (tmp_path / "messages" / "2025" / "10" / "broken.md").write_text("---json\n{\n---\n")
    (tmp_path / "file_reservations").mkdir()
    live = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for number, fields in enumerate(
        [
            {"agent": "GreenCastle", "path_pattern": "app/api/*.py", "exclusive": False, "expires_ts": live},
            {"agent": "GreenCastle", "path_pattern": "old.py", "expires_ts": "2025-01-01T00:00:00+00:00"},
            {"agent": "GreenCastle", "path_pattern": "done.py", "expires_ts": live, "released_ts": live},
            {"agent": "GreenCastle", "path_pattern": "/absolute", "expires_ts": live},
        ]
    ):
        (tmp_path / "file_reservations" / f"{number}.json").write_text(json.dumps(fields))
    return tmp_path


@pytest.fixture
def project(db: Database) -> Project:
    with db.transaction() as conn:
        return make_project(conn)


def _import(db: Database, project: Project, archive: Path) -> AgentMailReport:
    return agent_mail.import_archive(db.transaction, project.id, archive, actor="cli")


def test_agents_messages_and_reservations_come_over(db: Database, project: Project, archive: Path) -> None:
    report = _import(db, project, archive)
    assert [issued.participant for issued in report.agents] == ["BlueLake", "GreenCastle", "RedHill"]
    assert (report.messages, report.leases) == (2, 1)
    assert {finding.problem.partition(":")[0] for finding in report.findings} == {
        "files that are not messages are left out",
        "a reservation is left out",
    }
    with db.connection() as conn:
        green = tokens.find_caller(conn, fingerprint(report.agents[1].token))
        assert green is not None
        page = posts.list_posts(conn, green)
        first, answer, copy = page.posts[::-1]
        assert (first.subject, first.body, first.acked, first.created_at.isoformat()) == (
            "Build plan", "# Plan", True, "2025-10-23T15:22:14+00:00",
        )  # fmt: skip
        assert {answer.reply_to, copy.reply_to} == {first.post_id}
        assert page.unread == 0
        (lease,) = leases.list_leases(conn, green).leases
        assert (lease.surface, lease.mode) == ("app/api/*.py", "shared")


def test_a_repeated_import_adds_new_messages_only(db: Database, project: Project, archive: Path) -> None:
    _import(db, project, archive)
    _write_message(archive, "msg-3", "2025-10-25T08:00:00", "More.", thread_id="TKT-1")
    report = _import(db, project, archive)
    assert (report.agents, report.messages, report.unchanged) == ([], 1, 2)
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*), count(reply_to) FROM post") == (4, 3)


def test_another_folder_is_refused(db: Database, project: Project, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not the archive of a project"):
        _import(db, project, tmp_path)


@pytest.mark.parametrize(
    ("fields", "imported"),
    [
        ({"subject": "a\0", "thread_id": "\ud800"}, 1),
        ({"id": "a\0"}, 0),
        ({"id": "\ud800"}, 0),
        ({"created": "9999-12-31T23:59:59-14:00"}, 0),
        ({"created": "0001-01-01T00:00:00+14:00"}, 0),
    ],
)
def test_what_the_database_cannot_store_ends_no_import(
    db: Database, project: Project, tmp_path: Path, fields: dict[str, str], imported: int
) -> None:
    (tmp_path / "agents" / "BlueLake").mkdir(parents=True)
    path = tmp_path / "messages" / "2025" / "10" / "msg.md"
    path.parent.mkdir(parents=True)
    header = {"id": "m", "from": "BlueLake", "to": ["BlueLake"], "created": "2025-10-23T15:22:14+00:00", **fields}
    path.write_text(f"---json\n{json.dumps(header)}\n---\n\na\0b\n")
    assert _import(db, project, tmp_path).messages == imported


def test_a_reservation_at_the_end_of_time_ends_no_import(db: Database, project: Project, archive: Path) -> None:
    reservation = {"agent": "GreenCastle", "path_pattern": "x.py", "expires_ts": "9999-12-31T23:59:59-14:00"}
    (archive / "file_reservations" / "9.json").write_text(json.dumps(reservation))
    assert _import(db, project, archive).leases == 2
