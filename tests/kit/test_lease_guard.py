"""The lease guard: who else is where a commit goes."""

from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.mcp_client import McpClient


def test_files_that_somebody_else_holds_are_named_and_the_commit_goes_on(connected: GitRepo, bob: McpClient) -> None:
    bob.call("lease", surface="src/api/**", note="routes")
    connected.add("src/api/a.py", "src/web/b.py")
    done = connected.commit()
    assert done.returncode == 0
    assert "src/api/a.py is leased by" in done.stderr
    assert "src/web" not in done.stderr
    bob.call("release", surface="*")
    connected.add("src/api/c.py")
    assert connected.commit().stderr == ""


def test_strict_files_block_until_they_are_free(connected: GitRepo, bob: McpClient, alice: McpClient) -> None:
    connected.update_config(leases={"src/api/**": "strict", "src/quiet/**": "off"})
    bob.call("lease", surface="src")
    connected.add("src/api/a.py", "src/quiet/b.py")
    blocked = connected.commit()
    assert blocked.returncode == 1
    assert "src/api/a.py is leased by" in blocked.stderr
    assert "quiet" not in blocked.stderr
    assert connected.commit(LLM_BUS_OVERRIDE="1").returncode == 0
    bob.call("release", surface="*")
    alice.call("lease", surface="src")
    connected.add("src/api/c.py")
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_renamed_or_removed_file_is_guarded_too(connected: GitRepo, bob: McpClient) -> None:
    connected.add("a.txt", "b.txt")
    assert connected.commit().returncode == 0
    bob.call("lease", surface="a.txt")
    connected.git("mv", "a.txt", "c.txt")
    assert "a.txt is leased by" in connected.commit().stderr
    bob.call("lease", surface="b.txt")
    connected.git("rm", "-q", "b.txt")
    assert "b.txt is leased by" in connected.commit().stderr


def test_those_who_share_are_not_in_each_others_way(connected: GitRepo, bob: McpClient, alice: McpClient) -> None:
    bob.call("lease", surface="docs", mode="shared")
    connected.add("docs/a.md")
    assert "docs/a.md is leased by" in connected.commit().stderr
    alice.call("lease", surface="docs/**", mode="shared")
    connected.add("docs/b.md")
    assert connected.commit().stderr == ""
