"""The README's table of tools, from the tools themselves; run by `make docs`."""

import re
import sys
from itertools import groupby
from pathlib import Path

from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools

README = Path(__file__).resolve().parents[1] / "README.md"
_BEGIN, _END = "<!-- tools: written by `make docs` -->", "<!-- end of tools -->"


def render_table() -> str:
    """Return the table: a row for each module of tools, and one for those of project-admins."""
    rows = [
        f"| {area} | {'<br>'.join(map(_render_tool, tools))} |"
        for area, tools in groupby(all_tools().values(), key=_find_area)
    ]
    return "\n".join(["| | |", "|---|---|", *rows])


def insert_table(text: str) -> str:
    """Return the text of the README with the present table.

    Raises:
        ValueError: the markers of the table are not in the text.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"README.md needs the lines {_BEGIN} and {_END}.")
    return f"{before}{_BEGIN}\n{render_table()}\n{_END}{after}"


def _find_area(tool: Tool) -> str:
    if tool.admin_only:
        return "For project-admins"
    module = sys.modules[tool.function.__module__]
    found = re.match(r"Tools? of (?:the )?([^:]+?)(?: and administration)?:", module.__doc__ or "")
    assert found is not None, f"the module of {tool.name} names no area in its first line"
    return found[1].capitalize()


def _render_tool(tool: Tool) -> str:
    summary = tool.description.partition(". ")[0].removesuffix(".").replace("|", "\\|")
    return f"[`{tool.name}`](docs/reference/tools.md#{tool.name}) {summary[0].lower()}{summary[1:]}"


def main() -> None:
    """Write the table into the README."""
    README.write_text(insert_table(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
