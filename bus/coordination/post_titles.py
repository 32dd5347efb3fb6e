"""The title of a post: its subject, else the beginning of the first line of its body."""

import re

_MAX_TITLE_LENGTH = 80
# Signs of Markdown are no part of a title: of a heading, code and strong text. PostgreSQL and Python read them alike.
_HEADING, _CODE, _STRONG = "^#+ +", "`([^`]+)`", r"(?<!\w)\*\*(?=\S)([^*]+)\*\*"
_FIRST_LINE_SQL = (
    "regexp_replace(regexp_replace(regexp_replace(split_part(btrim(o.body, E' \\t\\r\\n'), E'\\n', 1),"
    f" '{_HEADING}', ''), '{_CODE}', '\\1', 'g'), '{_STRONG}', '\\1', 'g')"
)
TITLE_SQL = (
    f"coalesce(o.subject, CASE WHEN length({_FIRST_LINE_SQL}) <= {_MAX_TITLE_LENGTH} THEN {_FIRST_LINE_SQL}"
    f" ELSE left({_FIRST_LINE_SQL}, {_MAX_TITLE_LENGTH - 1}) || '…' END)"
)
"""SQL for the title of the post `o`, equal to `build_title`."""


def build_title(subject: str | None, body: str) -> str:
    """Return the title of a post; equal to TITLE_SQL."""
    if subject:
        return subject
    line = re.sub(_HEADING, "", body.strip(" \t\r\n").partition("\n")[0])
    line = re.sub(_STRONG, r"\1", re.sub(_CODE, r"\1", line))
    return line if len(line) <= _MAX_TITLE_LENGTH else f"{line[: _MAX_TITLE_LENGTH - 1]}…"
