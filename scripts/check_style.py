"""Refuse the phrases and variable names that docs/style.md refuses. Run by `make lint`; prints one line per finding."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STYLE_PAGE = ROOT / "docs" / "style.md"
SUFFIXES = {".py", ".sql", ".md", ".html", ".js", ".css", ".toml", ".yml", ".txt", ".mako"}
NAMES_WITHOUT_SUFFIX = {"Makefile", "Procfile"}
# The style page quotes what it refuses; frozen migrations cannot change.
EXEMPT = {"docs/style.md", "LICENSE", "migrations/versions/0001_initial.sql", "migrations/versions/0003_time.sql"}
PRODUCTION = ("bus/", "cli/", "kit/", "mcp_gateway/", "migrations/", "webapp/", "workers/")
VAGUE_NAMES = {"found", "one", "said", "what", "who"}


def main() -> int:
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, refused_phrases()))})\b", re.IGNORECASE)
    findings = [finding for path in tracked_files() for finding in check(path, pattern)]
    print(*findings, sep="\n")
    return 1 if findings else 0


def refused_phrases() -> list[str]:
    """The phrases between the two marks of the style page: each list item up to its colon, separated by commas."""
    text = STYLE_PAGE.read_text(encoding="utf-8")
    listed = text.partition("refused phrases: begin -->")[2].partition("<!-- refused phrases: end")[0]
    phrases = [
        phrase.strip()
        for line in listed.splitlines()
        if line.startswith("- ")
        for phrase in line[2:].partition(":")[0].split(",")
    ]
    if not phrases:
        raise SystemExit(f"{STYLE_PAGE} lists no refused phrases between its marks.")
    return phrases


def tracked_files() -> list[str]:
    output = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        path
        for path in output.split("\0")
        if path
        and path not in EXEMPT
        and (Path(path).suffix in SUFFIXES or path in NAMES_WITHOUT_SUFFIX)
        and (ROOT / path).is_file()
    ]


def check(path: str, pattern: re.Pattern[str]) -> Iterator[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(line):
            yield f"{path}:{number}: refused phrase “{match.group()}”: {line.strip()[:100]}"
    if path.endswith(".py") and path.startswith(PRODUCTION):
        yield from check_names(path, ast.parse(text))


def check_names(path: str, tree: ast.Module) -> Iterator[str]:
    """Find vague variable names; those of a comprehension or lambda that fits on one line may stay."""
    short_loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda)
        and node.lineno == node.end_lineno
    ]
    allowed = {id(child) for loop in short_loops for child in ast.walk(loop)}
    for node in ast.walk(tree):
        if id(node) in allowed:
            continue
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        else:
            continue
        if name in VAGUE_NAMES:
            yield f"{path}:{node.lineno}: vague name “{name}”: say what it holds"


if __name__ == "__main__":
    sys.exit(main())
