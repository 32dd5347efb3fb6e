"""A release has one version: of the code, the tag, the wheel, its commands, and the section of CHANGELOG.md."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from bus import __version__
from scripts import release

_ROOT = Path(__file__).resolve().parents[1]
_CHANGELOG = """# Changelog

## Unreleased

- A new tool.

## 0.1.0

The first version.
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a release reads and writes, outside of a workflow."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "__init__.py").write_text('"""The engine."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(_CHANGELOG)
    return tmp_path


def test_a_release_sets_the_version_and_dates_what_is_unreleased(checkout: Path) -> None:
    release.prepare(checkout, "0.2.0")
    assert release.read_version(checkout) == "0.2.0"
    assert release.notes(checkout, "0.2.0") == "- A new tool."
    assert release.notes(checkout, "0.1.0") == "The first version."
    text = (checkout / "CHANGELOG.md").read_text()
    assert re.search(
        r"^## Unreleased\n\n## 0\.2\.0 - 20\d\d-\d\d-\d\d\n\n- A new tool\.\n\n## 0\.1\.0\n", text, re.MULTILINE
    )
    release.check(checkout, "0.2.0")


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.1.0", "already has a section"), ("next", "write X.Y.Z"), ("v0.2", "write X.Y.Z"), ("0.2.0\n", "write X.Y.Z")],
)
def test_a_wrong_version_is_refused(checkout: Path, version: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        release.prepare(checkout, version)
    assert (checkout / "CHANGELOG.md").read_text() == _CHANGELOG


def test_a_release_without_changes_is_refused(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(_CHANGELOG.replace("- A new tool.\n", ""))
    with pytest.raises(ValueError, match="nothing to release"):
        release.prepare(checkout, "0.2.0")


def test_a_tag_that_is_not_the_version_is_refused(checkout: Path) -> None:
    with pytest.raises(ValueError, match=r"bus/__init__\.py has 0\.1\.0"):
        release.check(checkout, "0.2.0")
    (checkout / "bus" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    with pytest.raises(ValueError, match=r"no section with notes for 0\.2\.0"):
        release.check(checkout, "0.2.0")


def test_links_of_the_notes_lead_to_the_tagged_source(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/bus")
    text = "See [jobs](docs/howto/jobs.md#e-mail) and [MCP](https://modelcontextprotocol.io)."
    (checkout / "CHANGELOG.md").write_text(_CHANGELOG.replace("The first version.", text))
    assert release.notes(checkout, "0.1.0") == (
        "See [jobs](https://github.com/acme/bus/blob/v0.1.0/docs/howto/jobs.md#e-mail) and [MCP](https://modelcontextprotocol.io)."
    )


def test_the_present_version_has_notes() -> None:
    release.check(_ROOT, __version__)


def test_no_other_file_of_the_packaging_states_a_version() -> None:
    assert not re.search(r"^version\s*=", (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert "version" not in (_ROOT / "app.json").read_text()


@pytest.mark.parametrize("path", sorted((_ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    for action, comment in used:
        assert action.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
        assert action.startswith("./") or re.fullmatch(r"  # v[0-9.]+", comment), action


def test_only_the_jobs_of_a_release_that_need_it_may_write() -> None:
    workflow = yaml.safe_load((_ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow["permissions"] == {}
    assert {
        (name, permission)
        for name, job in workflow["jobs"].items()
        for permission, level in job["permissions"].items()
        if level == "write"
    } == {("build", "id-token"), ("build", "attestations"), ("publish", "contents")}


@pytest.mark.exhaustive
def test_the_wheel_of_a_tagged_commit_reports_its_version(tmp_path: Path) -> None:
    tree, built = tmp_path / "tree", tmp_path / "built"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_ROOT / name, tree / name)
    with (tree / "CHANGELOG.md").open("r+") as changelog:
        text = changelog.read()
        changelog.seek(0)
        changelog.write(text.replace("## Unreleased\n", "## Unreleased\n\n- A change.\n", 1))
    release.prepare(tree, "7.8.9rc1")

    def build(folder: Path, *options: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", *options], cwd=folder, check=True, capture_output=True
        )

    build(tree, "-t", "sdist", "-t", "wheel", "-d", str(built))
    wheel = built / "llm_bus-7.8.9rc1-py3-none-any.whl"
    with tarfile.open(built / "llm_bus-7.8.9rc1.tar.gz") as archive:
        archive.extractall(tmp_path / "source", filter="data")
    build(tmp_path / "source" / "llm_bus-7.8.9rc1", "-t", "wheel", "-d", str(tmp_path / "again"))
    with ZipFile(wheel) as first, ZipFile(tmp_path / "again" / wheel.name) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        first.extractall(tmp_path / "installed")
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == "llm-bus, version 7.8.9rc1"
