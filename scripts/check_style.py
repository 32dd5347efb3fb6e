"""Check texts and names against docs/style.md, and that cited files exist. Run by `make lint`.

Prints one line per finding and exits with 1 if there is any.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STYLE_PAGE = ROOT / "docs" / "style.md"
SUFFIXES = {".py", ".sql", ".md", ".html", ".js", ".css", ".toml", ".yml", ".txt", ".mako"}
NAMES_WITHOUT_SUFFIX = {"Dockerfile", "Makefile", "Procfile", "Procfile.split"}
# The style page quotes what it refuses; frozen migrations cannot change.
EXEMPT = {
    "docs/style.md",
    "scripts/check_style.py",
    "LICENSE",
    "migrations/versions/0001_initial.sql",
    "migrations/versions/0003_time.sql",
}
PRODUCTION = ("bus/", "cli/", "kit/", "mcp_gateway/", "migrations/", "webapp/", "workers/")
# A path of this repository, as comments and documentation cite it.
CITED_PATH = re.compile(
    r"(?<![\w./<\"'-])(?:bench|bus|cli|docs(?!/adr|/wiki)|kit|mcp_gateway|migrations|scripts|templates|tests|webapp|workers)"
    r"/[\w./-]*\.(?:css|html|js|json|md|py|sql|yml)\b"
)
# A relative link of a Markdown page.
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[\w-]+)?\)")
# Refused phrases that stay: (path, phrase) and the reason.
ALLOWED = {
    ("kit/session_hooks.py", "told"): "part of the names of state files in the repositories of users",
    ("bus/notifications/mail_addresses.py", "said"): "column of the table notice",
    ("bus/notifications/outbox.py", "said"): "column of the table notice",
    ("bus/notifications/circuit_breaker.py", "said"): "column of the table notice",
    ("bus/notifications/tables.py", "said"): "column of the table notice",
    ("cli/commands/webhook.py", "said"): "key of --json, part of the command's interface",
    ("cli/embedded/account.py", "nobody"): "name of a system account",
    ("migrations/versions/0002_waiting.py", "told"): "comment on a table, part of a frozen migration",
    ("migrations/versions/0004_access.py", "everybody"): "comment on a table, part of a frozen migration",
    ("migrations/versions/0004_access.py", "nobody"): "comment on a table, part of a frozen migration",
    ("migrations/versions/0004_access.py", "somebody"): "comment on a table, part of a frozen migration",
    ("migrations/versions/0005_invites.py", "whoever"): "comment on a table, part of a frozen migration",
}
# The only tests that may sleep: the helpers, and the load and faults of `make proof`, which last for a time.
WAITING_HELPERS = "tests/concurrency.py"
TIMED_TESTS = "tests/proof/"
VAGUE_NAMES = {"found", "one", "said", "what", "who"}


def main() -> int:
    """Print the findings and return the exit code."""
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
    """The text files of the repository that are checked."""
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
    """Findings of one file: phrases, citations, links and, in production code, names."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(line):
            if (path, match.group().lower()) in ALLOWED:
                continue
            yield f"{path}:{number}: refused phrase “{match.group()}”: {line.strip()[:100]}"
        if path.endswith(".md") or is_comment(line):
            for match in CITED_PATH.finditer(line):
                if not (ROOT / match.group()).exists():
                    yield f"{path}:{number}: there is no {match.group()}"
        if path.endswith(".md"):
            for match in LINK.finditer(line):
                if not (ROOT / path).parent.joinpath(match.group(1)).exists():
                    yield f"{path}:{number}: broken link {match.group(1)}"
    if path.endswith(".py") and path.startswith(PRODUCTION):
        yield from check_names(path, ast.parse(text))
    if path.endswith(".py") and path.startswith("tests/") and not path.startswith((WAITING_HELPERS, TIMED_TESTS)):
        yield from check_sleeps(path, ast.parse(text))


def is_comment(line: str) -> bool:
    """Whether a line looks like a comment or a line of a docstring, where paths are citations and not test data."""
    stripped = line.strip()
    return stripped.startswith(("#", "--", "/*", "*", "{#", '"""')) or (stripped[:1].isalpha() and "=" not in stripped)


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


def check_sleeps(path: str, tree: ast.Module) -> Iterator[str]:
    """Find sleeps in tests, too short for a busy machine and too long for every other; `sleep(0)` only yields."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function, delay = node.func, node.args[0]
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name == "sleep" and not (isinstance(delay, ast.Constant) and delay.value == 0):
            yield f"{path}:{node.lineno}: a sleep; wait for a condition with the functions of {WAITING_HELPERS}"


if __name__ == "__main__":
    sys.exit(main())
