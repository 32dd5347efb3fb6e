"""Build the documentation as a static site; run by `make docs-site`.

MkDocs reads one folder, and the pages of docs/ also link files elsewhere in the repository. So it reads a copy: the
README is its first page, and each other file or folder that a page links is a page under `source/`. The site then
needs no other host to be complete.
"""

import argparse
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = (
    ("Tutorials", "tutorials"),
    ("How to", "howto"),
    ("Reference", "reference"),
    ("Explanation", "explanation"),
    ("Decisions", "decisions"),
)
# Pages outside the sections, and the section that shows them.
_LOOSE_PAGES = {"glossary.md": "Reference", "style.md": "Explanation"}
_FIRST_PAGES = {"two-agents.md", "README.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^()\s#]+)(#[\w-]+)?(?=\))")
_IMAGE_OF_README = re.compile(r'(?<=")docs/(?=images/)')
# Python-Markdown takes a fence with more than a language for text.
_FENCE = re.compile(r"^( *```\w+) .*$", re.MULTILINE)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".conf": "nginx", ".service": "ini"}


def main() -> int:
    """Build the site into the folder that the command line names. Returns the exit code of MkDocs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mkdocs", help="the program")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "site")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pages(folder / "docs")
        configuration = {
            "INHERIT": str(ROOT / "mkdocs.yml"),
            "docs_dir": "docs",
            "site_dir": str(arguments.output.resolve()),
            "nav": make_navigation(folder / "docs"),
        }
        (folder / "mkdocs.yml").write_text(json.dumps(configuration), encoding="utf-8")
        command = [arguments.mkdocs, "build", "--strict", "--clean", "--config-file", "mkdocs.yml"]
        # The notice of the theme's authors about other versions of MkDocs.
        env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        return subprocess.run(command, cwd=folder, env=env, check=False).returncode


def write_pages(folder: Path) -> None:
    """Write the pages of the site: docs/, the README, and what they link."""
    shutil.copytree(ROOT / "docs", folder)
    linked: set[str] = set()
    for path in sorted(folder.rglob("*.md")):
        name = path.relative_to(folder).as_posix()
        path.write_text(_rewrite(f"docs/{name}", name, linked), encoding="utf-8")
    (folder / "index.md").write_text(_rewrite("README.md", "index.md", linked), encoding="utf-8")
    written: set[str] = set()
    while missing := sorted(linked - written):
        for source in missing:
            page = folder / page_of(source)
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(_make_source_page(source, linked), encoding="utf-8")
        written.update(missing)


def page_of(source: str) -> str:
    """Return the page of the site for a file or a folder of the repository."""
    if source == "README.md":
        return "index.md"
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    return f"source/{source.removesuffix('.md')}.md"


def make_navigation(folder: Path) -> list[object]:
    """List the pages by section, as the service does under /docs, and the pages of the source last."""
    sections: list[object] = [{"LLM Bus": "index.md"}]
    for title, name in SECTIONS:
        paths = sorted((folder / name).glob("*.md"), key=lambda path: (path.name not in _FIRST_PAGES, path))
        pages = [path.relative_to(folder).as_posix() for path in paths]
        sections.append({title: [*pages, *(page for page, section in _LOOSE_PAGES.items() if section == title)]})
    sections.append(
        {"Source": [path.relative_to(folder).as_posix() for path in sorted((folder / "source").rglob("*.md"))]}
    )
    return sections


def _rewrite(source: str, page: str, linked: set[str]) -> str:
    """Return the text of a page of the repository with links to pages of the site.

    Args:
        source: the file, relative to the repository.
        page: its page.
        linked: files of the repository outside docs/ that pages link; those of this page are added.
    """

    def replace(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if not target.startswith("docs/") and target != "README.md":
            linked.add(target)
        path = ROOT / target
        name = page_of(target) if path.suffix in {".md", ""} or not target.startswith("docs/") else target[5:]
        if target.startswith("docs/") and path.is_dir():
            name = f"{name}/README.md"
        return posixpath.relpath(name, posixpath.dirname(page) or ".") + (match[2] or "")

    text = (ROOT / source).read_text(encoding="utf-8")
    if source == "README.md":
        text = _IMAGE_OF_README.sub("", text)
    return _FENCE.sub(r"\1", "".join(part if is_code else _LINK.sub(replace, part) for is_code, part in _split(text)))


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the parts of a page, with whether it is a block of code."""
    for number, part in enumerate(re.split(r"(^ *```.*?^ *```$)", text, flags=re.MULTILINE | re.DOTALL)):
        yield number % 2 == 1, part


def _make_source_page(source: str, linked: set[str]) -> str:
    path = ROOT / source
    if path.suffix == ".md":
        return _rewrite(source, page_of(source), linked)
    if path.is_dir():
        files = subprocess.run(["git", "ls-files", "-z", source], cwd=ROOT, check=True, capture_output=True, text=True)
        names = [name for name in files.stdout.split("\0") if name]
        if source.startswith("tests/"):
            return "\n".join((f"# {source}/", "", *(f"- `{posixpath.relpath(name, source)}`" for name in names), ""))
        linked.update(names)
        folder = posixpath.dirname(page_of(source))
        links = (f"- [{posixpath.relpath(name, source)}]({posixpath.relpath(page_of(name), folder)})" for name in names)
        return "\n".join((f"# {source}/", "", *links, ""))
    language = _LANGUAGES.get(path.suffix, "text")
    return f"# {source}\n\n```{language}\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
