"""Every console block of the pages is run, or says why not; test_tutorials.py runs those of the tutorials."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import psycopg
import pytest

from bus.coordination import posts
from bus.db import Connection, Database
from bus.tenancy import invites, owners, projects
from cli.main import main
from tests import servers
from tests.bus.imports import original_database
from tests.cli import console_blocks
from tests.cli.bus_process import running_bus, temporary_data_folder
from tests.cli.console_blocks import PAGES, ROOT, Block, Reader
from tests.factories import Agent, make_agent

_CALL = re.compile(
    r"(?:^[$#] |[$(;&|] ?|exec |=\S+ )(?:llm-bus|\S*python3? -m cli)((?: [a-z-]+)+)", re.MULTILINE
)  # fmt: skip
_HOWTO = ROOT / "docs" / "howto"
# Run by test_tutorials.py, and by test_server_guide.py.
_ELSEWHERE = {"docs/tutorials/two-agents.md", "docs/tutorials/a-team.md", "docs/howto/install.md"}
_ON_ONE_BUS = {
    "README.md", "docs/howto/credits.md", "docs/howto/demo.md", "docs/howto/jobs.md", "docs/howto/kit.md",
    "docs/howto/mirror.md", "docs/howto/monitor.md", "docs/howto/operate.md", "docs/howto/scripts.md",
    "docs/howto/sign-in.md", "docs/howto/upgrade.md",
}  # fmt: skip
_ON_OWN_DATABASES = {
    "docs/howto/backup.md", "docs/howto/deploy.md", "docs/howto/move-from-the-original.md",
    "docs/howto/rotate-secrets.md",
}  # fmt: skip


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks() -> Iterator[tuple[str, Block]]:
    for path in PAGES:
        for block in console_blocks.read_blocks(path):
            yield _name(path), block


def test_every_console_block_is_run_or_says_why_not() -> None:
    unmarked = [
        (name, block.text)
        for name, block in _blocks()
        if not (len(block.reason) > 10 if block.session is None else block.session.isidentifier())
    ]
    assert unmarked == []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        blocks = console_blocks.read_blocks(path)
        assert len(blocks) == len(re.findall(r"^ *(?:```|~~~) *(?:console|sh|bash|shell)\b", text, re.MULTILINE)), path
        assert all(list(block.commands()) for block in blocks), path
        # A fence with a backtick after it begins no block: the page would end in one.
        assert re.findall(r"^ *```[^`\n]+`.*", text, re.MULTILINE) == [], path


def test_a_test_runs_every_page_with_blocks_that_are_run() -> None:
    pages = {name for name, block in _blocks() if block.session is not None}
    assert pages == _ON_ONE_BUS | _ON_OWN_DATABASES | _ELSEWHERE


def test_commands_of_all_blocks_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    unknown = []
    for name, block in _blocks():
        unknown += [(name, target) for target in re.findall(r"\bmake ([a-z-]+)", block.text) if target not in targets]
        for words in re.findall(
            r"(?:^[$#] |[$(;&|] ?|exec |=\S+ )(?:llm-bus|\S*python3? -m cli)((?: [a-z-]+)+)", block.text, re.M
        ):
            if not _is_command(words.split()):
                unknown.append((name, words))
    assert unknown == []


def _is_command(words: list[str]) -> bool:
    """Return whether the words name a command, with or without arguments."""
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group):
            break
        subcommand = command.get_command(click.Context(command), word)
        if subcommand is None:
            return False
        command = subcommand
    return not isinstance(command, click.Group)


@dataclass(frozen=True)
class _Site:
    """A running bus with what the pages take for granted."""

    variables: dict[str, str]
    addresses: dict[str, str]
    agent: Agent
    invite: str
    post_ids: list[int]


@pytest.fixture(scope="module")
def site() -> Iterator[_Site]:
    with temporary_data_folder() as data, running_bus(data) as process:
        info = process.startup_info
        with closing(Database(info["database_url"], pool_size=1)) as db, db.transaction() as conn:
            agent, invite, post_ids = _add_examples(conn)
        yield _Site(
            {"LLM_BUS_DATA": info["data"]},
            {
                "https://BUS/mcp": info["gateway_url"],
                "https://BUS": info["web_url"],
                "http://127.0.0.1:8787": info["web_url"],
            },
            agent,
            invite,
            post_ids,
        )


def _add_examples(conn: Connection) -> tuple[Agent, str, list[int]]:
    owners.add(conn, "ann@example.org", handle="ann", actor="test")
    owners.add(conn, "you@example.org", handle="you", actor="test")
    owner = owners.add(conn, "my@example.org", handle="my-handle", actor="test")
    project = projects.add(conn, owner.id, "my-project", actor="test")
    agent, sender = (make_agent(conn, project, name, lane="ops") for name in ("ci", "builder-1"))
    post_ids = [posts.create(conn, sender.ctx, f"post {number}", to_lane="ops").post_id for number in (1, 2)]
    invite = invites.create_for_owner(conn, project.id, uses=1, ttl_hours=1, actor="test")
    return agent, invite.code, post_ids


@pytest.mark.exhaustive
def test_databases_roles_and_secrets(empty_database_url: str, redis_url: str, tmp_path: Path) -> None:
    name = urlsplit(empty_database_url).path[1:]
    # Roles belong to the whole server, so each run has its own.
    owner, app, app2 = (f"{role}_{name[-8:]}" for role in ("bus_owner", "bus_app", "bus_app2"))
    server = urlsplit(empty_database_url).netloc.rpartition("@")[2]
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'".encode())
        conn.execute(f"ALTER DATABASE {name} OWNER TO {owner}".encode())
    try:
        reader = Reader(
            tmp_path,
            {
                "postgresql://bus_owner:...@db/bus": f"postgresql://{owner}:owner@{server}/{name}",
                "postgresql://bus_app:A-NEW-PASSWORD@db/bus": f"postgresql://{app}:new@{server}/{name}",
                "postgresql://bus_app2:…@db/llm_bus": f"postgresql://{app2}:new@{server}/{name}",
                "PASSWORD '…'": "PASSWORD 'new'",
                "bus_app2 LOGIN": f"{app2} LOGIN",
                "OWNED BY bus_app;": f"OWNED BY {app};",
                'DROP ROLE bus_app"': f'DROP ROLE {app}"',
                "role: bus_app reads": f"role: {app} reads",
                "psql ": f"psql --dbname={servers.maintenance_url()} ",
                '" llm_bus': f'" --dbname={empty_database_url}',
            },
            variables={
                "REDIS_URL": redis_url,
                "MIGRATION_DATABASE_URL": f"postgresql://{owner}:owner@{server}/{name}",
            },
        )
        assert reader.run(_HOWTO / "deploy.md") > 0
        assert reader.run(_HOWTO / "rotate-secrets.md") > 0
    finally:
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            for role in (app2, app, owner):
                if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                    conn.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER".encode())
                    conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.exhaustive
def test_backup_and_restore(database_url: str, tmp_path: Path) -> None:
    with closing(Database(database_url, pool_size=1)) as db, db.transaction() as conn:
        _add_examples(conn)
    name = f"restored_{urlsplit(database_url).path[-8:]}"
    restored_url = urlsplit(database_url)._replace(path=f"/{name}").geturl()
    restored_app_url = servers.application_url(restored_url)
    (tmp_path / "backups").mkdir()
    reader = Reader(
        tmp_path,
        {
            "/backups/": f"{tmp_path}/backups/",
            "createdb bus_restored": f"createdb --maintenance-db={servers.maintenance_url()} {name}",
            "postgresql://.../bus_restored": f"{restored_app_url} MIGRATION_DATABASE_URL={restored_url}",
        },
        variables={"DATABASE_URL": servers.application_url(database_url), "MIGRATION_DATABASE_URL": database_url},
    )
    try:
        assert reader.run(_HOWTO / "backup.md") == 3
    finally:
        servers.drop_database(name)


@pytest.mark.exhaustive
def test_moving_over(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    original_database.create(empty_database_url, events=300, tokens=5)
    with psycopg.connect(empty_database_url) as conn:
        (original_id,) = conn.execute("SELECT max(id) FROM events WHERE project_id = 1").fetchone() or (0,)
    (tmp_path / ".beads").mkdir()
    (tmp_path / ".beads" / "issues.jsonl").write_text(json.dumps({"id": "bd-1", "title": "An issue"}) + "\n")
    mailbox = tmp_path / "mailbox" / "projects" / "backend"
    for folder in ("agents/GreenCastle", "messages/2025/10"):
        (mailbox / folder).mkdir(parents=True)
    (mailbox / "agents" / "GreenCastle" / "profile.json").write_text("{}")
    header = {"id": "m1", "from": "GreenCastle", "to": ["GreenCastle"], "created": "2025-10-23T15:22:14+00:00"}
    (mailbox / "messages" / "2025" / "10" / "m1.md").write_text(f"---json\n{json.dumps(header)}\n---\n\nText\n")
    reader = Reader(
        tmp_path,
        {
            "postgresql://USER:PASSWORD@HOST/llm_bus": empty_database_url,
            "find Apollo 48213": f"find Apollo {original_id}",
        },
        variables={
            "HOME": str(tmp_path),
            "DATABASE_URL": servers.application_url(database_url),
            "MIGRATION_DATABASE_URL": database_url,
        },
    )
    assert reader.run(_HOWTO / "move-from-the-original.md") > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(_ON_ONE_BUS))
def test_the_blocks_of_a_page_work(site: _Site, name: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    # `make` is called in the checkout.
    (programs / "make").write_text(f'#!/bin/sh\nexec /usr/bin/make -C {ROOT} "$@"\n')
    (programs / "make").chmod(0o755)
    (tmp_path / "gateway.log").write_text('{"request_id":"5f0c9a7e21b4-1a2"}\n')
    for session in ("repository", "invited"):
        folder = tmp_path / session
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
        (folder / "CLAUDE.md").write_text("# Rules\n")
    home = tmp_path / "home"
    home.mkdir()
    reader = Reader(
        tmp_path,
        {
            **site.addresses,
            ".venv/bin/llm-bus": "llm-bus",
            "LLM_BUS_TOKEN=lbus_…": f"LLM_BUS_TOKEN={site.agent.token}",
            "inv_…": site.invite,
            "41 42": " ".join(map(str, site.post_ids)),
        },
        variables={
            **site.variables,
            "HOME": str(home),
            "COMMIT": "4f2a91c",
            "PIP_CERT": os.environ.get("PIP_CERT", ""),
        },
    )
    assert reader.run(ROOT / name) > 0
