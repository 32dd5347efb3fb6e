"""One installation serves all work trees of a repository: linked, sparse, of a bare repository, of any branch."""

from pathlib import Path

from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess


def assert_numbers_are_checked(tree: GitRepo, team: Team) -> None:
    """Assert that a commit in a work tree is blocked: Bob has claimed number 1."""
    tree.add("docs/adr/0001-mine.md")
    done = tree.commit(LLM_BUS_TOKEN=team.alice.token)
    assert done.returncode == 1, done
    assert "adr 1 is claimed by" in done.stderr


def test_a_work_tree_of_a_branch_without_the_configuration_is_checked(
    plain: GitRepo, gateway: GatewayProcess, team: Team, bob: McpClient
) -> None:
    plain.install(gateway.url, "--client", "none")
    bob.call("claim", sequence="adr")
    path = plain.root.parent / "tree"
    plain.git("worktree", "add", "-q", str(path), "-b", "other")
    assert_numbers_are_checked(GitRepo(path, plain.env, plain.python), team)


def test_a_sparse_checkout_without_the_configuration_is_checked(
    plain: GitRepo, gateway: GatewayProcess, team: Team, bob: McpClient
) -> None:
    plain.install(gateway.url, "--client", "none")
    bob.call("claim", sequence="adr")
    plain.git("add", "-A")
    assert plain.commit("kit").returncode == 0
    plain.git("sparse-checkout", "set", "--no-cone", "/docs/")
    assert not (plain.root / "llm-bus.config.json").exists()
    assert_numbers_are_checked(plain, team)


def test_a_work_tree_of_a_bare_repository_is_checked(
    plain: GitRepo, gateway: GatewayProcess, team: Team, bob: McpClient
) -> None:
    bob.call("claim", sequence="adr")
    bare = plain.root.parent / "bare.git"
    plain.git("clone", "-q", "--bare", str(plain.root), str(bare))
    trees = []
    for name in ("one", "two"):
        path = plain.root.parent / name
        plain.git("worktree", "add", "-q", str(path), "-b", name, cwd=bare)
        trees.append(GitRepo(path, plain.env, plain.python))
    trees[0].install(gateway.url, "--client", "none")
    assert (bare / "llm-bus" / "kit" / "__main__.py").exists()
    assert_numbers_are_checked(trees[0], team)
    # The other one has no configuration, and no main work tree that has one.
    trees[1].add("docs/adr/0001-mine.md")
    done = trees[1].commit(LLM_BUS_TOKEN=team.alice.token)
    assert (done.returncode, "not checked:" in done.stderr, done.stderr.count("\n")) == (0, True, 1), done


def test_each_work_tree_has_a_token_of_its_own_and_shares_that_of_the_main_one(
    plain: GitRepo, gateway: GatewayProcess, team: Team
) -> None:
    plain.install(gateway.url, "--client", "none", "--save-token", LLM_BUS_TOKEN=team.alice.token)
    path = plain.root.parent / "tree"
    plain.git("worktree", "add", "-q", str(path), "-b", "other")
    tree = GitRepo(path, plain.env, plain.python)
    assert team.alice.actor in tree.run_kit("doctor").stdout
    tree.install(gateway.url, "--client", "none", "--save-token", LLM_BUS_TOKEN=team.bob.token)
    assert team.bob.actor in tree.run_kit("doctor").stdout
    assert team.alice.actor in plain.run_kit("doctor").stdout
    # Log and state are local to the work tree, and inside its git folder.
    tree.run_kit("wake", "start", "claude", stdin='{"session_id": "s"}')
    assert (tree.local_path / "state" / "started-claude").exists()
    assert not (plain.local_path / "state" / "started-claude").exists()
    assert sorted(file.name for file in path.iterdir()) == [".git", "README.md", "docs", "llm-bus.config.json"]


def test_a_commit_says_that_it_was_not_checked_where_the_code_was_deleted(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    for path in sorted(Path(plain.kit_path).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    plain.add("docs/adr/0001-a.md")
    done = plain.commit()
    assert (done.returncode, done.stderr) == (
        0,
        "llm-bus: not checked: the kit is not in .git/llm-bus/kit; install it again.\n",
    )
