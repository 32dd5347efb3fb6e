"""The commands of the tutorials, run on a bus, print what the pages show."""

from contextlib import closing
from pathlib import Path

import pytest

from bus.db import Database
from bus.tenancy import projects
from tests.cli.bus_process import BusProcess
from tests.cli.console_blocks import ROOT, Reader
from tests.factories import make_agent

_TUTORIALS_DIR = ROOT / "docs" / "tutorials"


def test_two_agents(bus: BusProcess, tmp_path: Path) -> None:
    info = bus.startup_info
    # A project of its own, so that the numbers of its ledger begin with 1.
    with closing(Database(info["database_url"], pool_size=1)) as database, database.transaction() as conn:
        owner = projects.get_by_name(conn, "demo").owner_id
        project = projects.add(conn, owner, "two-agents", actor="test")
        alice, bob = (make_agent(conn, project, name) for name in ("alice", "bob"))
    reader = Reader(
        tmp_path,
        {"http://127.0.0.1:8788/mcp": info["gateway_url"], "lbus_ALICE": alice.token, "lbus_BOB": bob.token},
        is_exact=True,
    )
    assert reader.run(_TUTORIALS_DIR / "two-agents.md") > 10


@pytest.mark.exhaustive
def test_a_team(bus: BusProcess, tmp_path: Path) -> None:
    info = bus.startup_info
    # Tokens and the code of the invite are shown in earlier output, from where a reader copies them.
    reader = Reader(
        tmp_path,
        {"http://127.0.0.1:8788/mcp": info["gateway_url"], "http://127.0.0.1:8787": info["web_url"]},
        {
            "lbus_LEAD": r"owner/lead was added to shop.*\n(lbus_\w+)",
            "lbus_API_1": r"owner/api-1 was added to shop.*\n(lbus_\w+)",
            "lbus_API_2": r"owner/api-2 was added to shop.*\n(lbus_\w+)",
            "inv_CODE": r'"code": "(inv_\w+)"',
        },
        {"LLM_BUS_DATA": info["data"]},
        is_exact=True,
    )
    assert reader.run(_TUTORIALS_DIR / "a-team.md") > 15
