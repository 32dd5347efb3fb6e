"""Versions and release notes: `make release VERSION=X.Y.Z`, and what the release workflow checks.

The version is in bus/__init__.py alone; the wheel, `llm-bus --version` and the tag have the same. The notes of a
release are its section in CHANGELOG.md.
"""

import argparse
import datetime
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?")
_ASSIGNMENT = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_UNRELEASED = "## Unreleased\n"


def main() -> int:
    """Run the command that is named. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    commands = parser.add_subparsers(required=True)
    for function in (check, notes, prepare):
        subparser = commands.add_parser(function.__name__, help=(function.__doc__ or "").partition("\n")[0])
        subparser.add_argument("version", help="X.Y.Z, or the tag vX.Y.Z")
        subparser.set_defaults(function=function)
    arguments = parser.parse_args()
    try:
        print(arguments.function(arguments.root, arguments.version.removeprefix("v")))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check(root: Path, version: str) -> str:
    """Check that the version is that of the code and has a section in CHANGELOG.md."""
    current = read_version(root)
    if version != current:
        raise ValueError(
            f"The tag is for {version}, but bus/__init__.py has {current}. Run make release VERSION={version}."
        )
    notes(root, version)
    return f"{version} is the version of the code and has release notes."


def notes(root: Path, version: str) -> str:
    """Return the section of a version in CHANGELOG.md."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)}(?: - [^\n]*)?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise ValueError(f"CHANGELOG.md has no section with notes for {version}. Run make release VERSION={version}.")
    # GitHub resolves no relative links in the notes of a release.
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    base = f"{server}/{repository}/blob/v{version}/" if server and repository else ""
    return re.sub(r"(?<=\]\()(?!\w+:|#)", base, section[1].strip())


def prepare(root: Path, version: str) -> str:
    """Set the version, and give what is unreleased in CHANGELOG.md its number and date."""
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version; write X.Y.Z, such as 0.2.0 or 0.2.0rc1.")
    code, changelog = root / "bus" / "__init__.py", root / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    if f"\n## {version} " in text or f"\n## {version}\n" in text:
        raise ValueError(f"CHANGELOG.md already has a section for {version}.")
    unreleased = text.partition(f"\n{_UNRELEASED}")[2].partition("\n## ")[0]
    if not unreleased.strip():
        raise ValueError("CHANGELOG.md lists nothing under Unreleased, so there is nothing to release.")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    changelog.write_text(text.replace(_UNRELEASED, f"{_UNRELEASED}\n## {version} - {today}\n", 1), encoding="utf-8")
    code.write_text(_ASSIGNMENT.sub(f'__version__ = "{version}"', code.read_text(encoding="utf-8")), encoding="utf-8")
    steps = (f"commit -am 'release: {version}'", f"tag -s v{version} -m {version}", f"push origin main v{version}")
    return "\n".join(["Next:", *(f"  git {step}" for step in steps)])


def read_version(root: Path) -> str:
    """Return the version of the code in a checkout."""
    match = _ASSIGNMENT.search((root / "bus" / "__init__.py").read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("bus/__init__.py sets no __version__.")
    return match[1]


if __name__ == "__main__":
    sys.exit(main())
