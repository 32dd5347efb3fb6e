"""The lease guard: leases of other participants on the files of a commit."""

from dataclasses import replace

from bus.coordination import leases
from bus.db import Database
from bus.tenancy import projects
from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient


def test_files_that_another_participant_has_leased_are_listed_and_the_commit_proceeds(
    connected: GitRepo, bob: McpClient
) -> None:
    bob.call("lease", surface="src/api/**", note="routes")
    connected.add("src/api/a.py", "src/web/b.py")
    done = connected.commit()
    assert done.returncode == 0
    assert "src/api/a.py is leased by" in done.stderr
    assert "src/web" not in done.stderr
    bob.call("release", surface="*")
    connected.add("src/api/c.py")
    assert connected.commit().stderr == ""


def test_a_lease_beyond_the_first_page_of_leases_is_found(connected: GitRepo, kit_db: Database, team: Team) -> None:
    with kit_db.transaction() as conn:
        oldest = leases.acquire(conn, team.bob.ctx, "src/api/**")
        for number in range(201):
            leases.acquire(conn, team.bob.ctx, f"other/{number}")
        page = leases.list_leases(conn, team.alice.ctx)
        assert oldest.fence not in {lease.fence for lease in page.leases}
    connected.add("src/api/a.py")
    assert "src/api/a.py is leased by" in connected.commit().stderr


def test_strict_files_block_until_they_are_released(connected: GitRepo, bob: McpClient, alice: McpClient) -> None:
    connected.update_config(leases={"src/api/**": "strict", "src/quiet/**": "off"})
    bob.call("lease", surface="src")
    connected.add("src/api/a.py", "src/quiet/b.py")
    blocked = connected.commit()
    assert blocked.returncode == 1
    assert "src/api/a.py is leased by" in blocked.stderr
    assert "quiet" not in blocked.stderr
    # Only the value that the message names overrides.
    assert connected.commit(LLM_BUS_OVERRIDE="0").returncode == 1
    assert connected.commit(LLM_BUS_OVERRIDE="1").returncode == 0
    bob.call("release", surface="*")
    alice.call("lease", surface="src")
    connected.add("src/api/c.py")
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")


def test_renamed_and_deleted_files_are_checked_too(connected: GitRepo, bob: McpClient) -> None:
    connected.add("a.txt", "b.txt")
    assert connected.commit().returncode == 0
    bob.call("lease", surface="a.txt")
    connected.git("mv", "a.txt", "c.txt")
    assert "a.txt is leased by" in connected.commit().stderr
    bob.call("lease", surface="b.txt")
    connected.git("rm", "-q", "b.txt")
    assert "b.txt is leased by" in connected.commit().stderr


def test_holders_of_shared_leases_do_not_warn_each_other(connected: GitRepo, bob: McpClient, alice: McpClient) -> None:
    bob.call("lease", surface="docs", mode="shared")
    connected.add("docs/a.md")
    assert "docs/a.md is leased by" in connected.commit().stderr
    alice.call("lease", surface="docs/**", mode="shared")
    connected.add("docs/b.md")
    assert connected.commit().stderr == ""


def test_a_project_whose_paths_ignore_case_warns_in_any_case(
    connected: GitRepo, bob: McpClient, kit_db: Database, team: Team
) -> None:
    bob.call("lease", surface="Src/A.py")
    connected.add("src/a.py")
    assert connected.commit().stderr == ""
    with kit_db.transaction() as conn:
        settings = replace(projects.get_settings(conn, team.project_id), case_insensitive_paths=True)
        projects.set_settings(conn, team.project_id, settings, actor="test")
        leases.fold_live_leases(conn, team.project_id)
    bob.call("lease", surface="SRC/B*.py")
    connected.add("Src/A.txt", "SRC/A.py", "src/bx.py", "Src/C.py")
    done = connected.commit()
    assert "SRC/A.py is leased by" in done.stderr
    assert "src/bx.py is leased by" in done.stderr
    assert "C.py" not in done.stderr
    assert "A.txt" not in done.stderr
