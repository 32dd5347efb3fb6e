"""Files that a merge, a checkout, a patch or a reset brings from another commit are no new numbers of the committer."""

import shutil
from collections.abc import Callable

import pytest

from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess

THEIRS = "docs/adr/0001-theirs.md"


@pytest.fixture
def shared(connected: GitRepo, bob: McpClient) -> GitRepo:
    """Alice's repository with a branch of Bob, who has claimed the number of its file."""
    bob.call("claim", sequence="adr")
    connected.git("checkout", "-q", "-b", "theirs")
    connected.add(THEIRS)
    connected.git("commit", "-q", "--no-verify", "-m", "theirs")
    connected.git("checkout", "-q", "main")
    # So that no command fast-forwards.
    connected.add("mine.txt")
    assert connected.commit("mine").returncode == 0
    return connected


def squash(repo: GitRepo) -> None:
    repo.git("merge", "-q", "--squash", "theirs")


def squash_and_edit(repo: GitRepo) -> None:
    repo.git("merge", "-q", "--squash", "theirs")
    repo.add(THEIRS)
    repo.write(THEIRS, "edited while the conflict was resolved\n")
    repo.git("add", "-A")


def squash_of_a_deleted_branch(repo: GitRepo) -> None:
    repo.git("merge", "-q", "--squash", "theirs")
    repo.git("branch", "-q", "-D", "theirs")


def squash_of_a_branch_deleted_with_its_worktree(repo: GitRepo) -> None:
    tree = str(repo.root.parent / "tree")
    repo.git("reflog", "expire", "--expire=all", "--all")
    repo.git("worktree", "add", "-q", tree, "theirs")
    repo.git("merge", "-q", "--squash", "theirs")
    repo.git("worktree", "remove", tree)
    repo.git("branch", "-q", "-D", "theirs")


def merge_without_commit(repo: GitRepo) -> None:
    repo.git("merge", "-q", "--no-commit", "theirs")


def cherry_pick_without_commit(repo: GitRepo) -> None:
    repo.git("cherry-pick", "-n", "theirs")


def rebase_that_stopped_to_split_a_commit(repo: GitRepo) -> None:
    repo.git("checkout", "-q", "theirs")
    repo.git("rebase", "-q", "-i", "main", GIT_SEQUENCE_EDITOR="sed -i s/^pick/edit/")
    repo.git("reset", "-q", "HEAD^")
    repo.git("add", "-A")


def checkout_of_the_path(repo: GitRepo) -> None:
    repo.git("checkout", "theirs", "--", THEIRS)


def restore_of_the_path(repo: GitRepo) -> None:
    repo.git("restore", "--source", "theirs", "--staged", "--worktree", THEIRS)


def patch(repo: GitRepo) -> None:
    text = repo.git("diff", "--binary", "main...theirs").stdout
    assert repo.run("git", "apply", "--index", stdin=text).returncode == 0


def stash(repo: GitRepo) -> None:
    repo.git("checkout", "theirs", "--", THEIRS)
    repo.git("stash", "-q")
    repo.git("stash", "pop", "-q", "--index")


def soft_reset(repo: GitRepo) -> None:
    repo.git("merge", "-q", "theirs", "-m", "merged")
    repo.git("branch", "-q", "-D", "theirs")
    repo.git("reset", "-q", "--soft", "HEAD^")


def tag(repo: GitRepo) -> None:
    repo.git("tag", "-a", "-m", "release", "v1", "theirs")
    repo.git("branch", "-q", "-D", "theirs")
    repo.git("checkout", "v1", "--", THEIRS)


def moved_to_another_folder(repo: GitRepo) -> None:
    repo.git("checkout", "theirs", "--", THEIRS)
    repo.update_config(sequences={"docs/**": "adr"})
    repo.git("mv", THEIRS, "docs/0001-theirs.md")


def revert_of_a_deletion(repo: GitRepo) -> None:
    repo.git("merge", "-q", "theirs", "-m", "merged")
    repo.git("branch", "-q", "-D", "theirs")
    repo.git("rm", "-q", THEIRS)
    assert repo.commit("deleted").returncode == 0
    repo.git("revert", "-n", "HEAD")


def checkout_from_the_history(repo: GitRepo) -> None:
    repo.git("merge", "-q", "theirs", "-m", "merged")
    repo.git("branch", "-q", "-D", "theirs")
    repo.git("rm", "-q", THEIRS)
    assert repo.commit("deleted").returncode == 0
    clone = repo.root.parent / "clone"
    # A clone has no log of the earlier states of HEAD.
    repo.git("clone", "-q", str(repo.root), str(clone))
    shutil.copytree(repo.root / ".git" / "llm-bus", clone / ".git" / "llm-bus")
    shutil.copy(repo.root / ".git" / "hooks" / "pre-commit", clone / ".git" / "hooks" / "pre-commit")
    repo.root = clone
    repo.git("checkout", "HEAD^", "--", THEIRS)


def fetch_without_a_ref(repo: GitRepo) -> None:
    clone = repo.root.parent / "clone"
    repo.git("clone", "-q", str(repo.root), str(clone))
    repo.git("branch", "-q", "-D", "theirs")
    repo.git("reflog", "expire", "--expire=all", "--all")
    repo.git("fetch", "-q", str(clone), "refs/remotes/origin/theirs")
    repo.git("merge", "-q", "--squash", "FETCH_HEAD")


ORIGINS: list[Callable[[GitRepo], None]] = [
    squash,
    squash_and_edit,
    squash_of_a_deleted_branch,
    squash_of_a_branch_deleted_with_its_worktree,
    merge_without_commit,
    cherry_pick_without_commit,
    rebase_that_stopped_to_split_a_commit,
    checkout_of_the_path,
    restore_of_the_path,
    patch,
    stash,
    soft_reset,
    tag,
    moved_to_another_folder,
    revert_of_a_deletion,
    checkout_from_the_history,
    fetch_without_a_ref,
]


@pytest.mark.parametrize("bring", ORIGINS, ids=lambda bring: bring.__name__)
def test_a_file_from_another_commit_is_no_new_number(
    shared: GitRepo, bob: McpClient, bring: Callable[[GitRepo], None]
) -> None:
    bring(shared)
    assert "0001-theirs.md" in shared.git("diff", "--cached", "--name-only").stdout
    done = shared.commit("brought")
    assert (done.returncode, done.stderr) == (0, "")
    # Nothing was claimed for it.
    assert bob.call("claim", sequence="adr").structured_content["number"] == 2


def test_the_content_of_another_file_is_no_origin_under_a_new_number(connected: GitRepo, bob: McpClient) -> None:
    """A copy of a template or of an earlier record is a new record."""
    connected.add("docs/adr/0000-template.md")
    assert connected.commit("template").returncode == 0
    bob.call("claim", sequence="adr")
    connected.write("docs/adr/0001-mine.md", "docs/adr/0000-template.md\n")
    connected.git("add", "-A")
    blocked = connected.commit()
    assert blocked.returncode == 1
    assert "adr 1 is claimed by" in blocked.stderr


def test_a_stash_is_no_origin_since_nothing_has_checked_it(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    connected.add("docs/adr/0001-mine.md")
    connected.git("stash", "-q")
    connected.git("stash", "apply", "-q", "--index")
    assert connected.commit().returncode == 1


def test_a_rewritten_file_keeps_the_number_of_the_file_that_it_replaces(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    connected.add("docs/adr/0001-theirs.md")
    assert connected.commit("theirs", LLM_BUS_OVERRIDE="1").returncode == 0
    connected.git("rm", "-q", "docs/adr/0001-theirs.md")
    connected.write("docs/adr/0001-other-title.md", "a completely different text\n" * 20)
    connected.git("add", "-A")
    done = connected.commit("rewritten")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_same_path_in_another_clone_gets_the_same_number(
    connected: GitRepo, alice: McpClient, gateway: GatewayProcess
) -> None:
    """Without a common commit: the file is on both machines before either is pushed."""
    clone = connected.root.parent / "clone"
    connected.git("clone", "-q", str(connected.root), str(clone))
    connected.add("docs/adr/0009-cache.md")
    assert "git mv -- docs/adr/0009-cache.md docs/adr/0001-cache.md" in connected.commit().stderr
    other = GitRepo(clone, connected.env, connected.python, connected.extra_env)
    other.install(gateway.url, "--client", "none", "--no-seed")
    other.add("docs/adr/0009-cache.md")
    assert "git mv -- docs/adr/0009-cache.md docs/adr/0001-cache.md" in other.commit().stderr
    claims = alice.call("query_events", type="claim", sequence="adr").structured_content["events"]
    assert len(claims) == 1


def test_the_same_path_in_another_worktree_burns_no_second_number(connected: GitRepo, alice: McpClient) -> None:
    tree = connected.root.parent / "tree"
    connected.git("worktree", "add", "-q", str(tree), "-b", "other")
    connected.add("docs/adr/0009-cache.md")
    assert connected.commit().returncode == 0
    other = GitRepo(tree, connected.env, connected.python, connected.extra_env)
    other.add("docs/adr/0009-cache.md")
    done = other.commit()
    assert (done.returncode, done.stderr) == (0, "")
    claims = alice.call("query_events", type="claim", sequence="adr").structured_content["events"]
    assert len(claims) == 1
