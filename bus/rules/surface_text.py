"""The text of a surface as clients and models send it: what is cleaned, and what is refused with the text to send.

A lease on a text that names no path succeeds and protects nothing. So decoration that cannot be mistaken is removed
(surrounding quotes, line numbers such as `:10-20` and `#L10`), and every other text that is probably not one path or
glob is refused: several paths, URLs, mentions, shell and HTML escapes, placeholders, ellipses, invisible characters.
Each of these characters may occur in a name; a `?` in its place matches it.
"""

import re
from itertools import pairwise

from bus.errors import InvalidArgument
from bus.rules import validation

# Most surfaces consist of these characters, and need no check unless they contain an ellipsis.
_PLAIN = re.compile(r"[\w./*+-]*", re.ASCII)
_ELLIPSIS = "..."
# As programs write a value that is missing.
_MISSING_VALUES = frozenset({"null", "undefined", "None", "NaN"})

_QUOTE_PAIRS = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u201c": "\u201d",
    "\u201e": "\u201c",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u2039": "\u203a",
}
_QUOTE_CHARACTERS = re.compile('["`\u201c\u201d\u201e\u00ab\u00bb]')
_QUOTED_LIST = re.compile("[\"'`\u201d]\\s*[,;\\s]\\s*[\"'`\u201c]")
_LINE_SUFFIX = re.compile(r"(?::L?\d+(?:[:,\-\u2013]L?\d+)*|#L\d+(?:C\d+)?(?:-L?\d+(?:C\d+)?)?)$", re.ASCII)
# A ']' in first place is a member, as in bus/rules/surfaces.py.
_CLASS = re.compile(r"\[!?[^/][^\]/]*\]")

# Exclusion in .gitignore, and the signature of a pathspec of git.
_EXCLUSION = re.compile(r"!.*[/.*]|:")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_LABEL = re.compile(r"(?:[^/:]+:(?=[^/]*[/.])|(?:dir|file|glob|path|surface)s?\s*=)")
_VARIABLE = re.compile(r"\$[{(]|^\$[A-Z_]+(?:/|$)|%[A-Za-z_]{3,}%")
_PERCENT_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(r"&(?:[a-z]{2,6}|#[0-9]{1,6}|#x[0-9A-Fa-f]{1,6});")
_BACKSLASH_ESCAPE = re.compile(r"\\(?:[0-7]{3}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[^\w.\\])", re.ASCII)
# Text after the name of a file, such as a symbol, an anchor, a test or a line.
_TEXT_AFTER_FILE = re.compile(
    r"(?P<file>.*\.[A-Za-z]\w{0,9})"
    r"(?:::?[^/]*|#[\w-]*|\(\d+(?:,\s*\d+)?\)|,?\s+\(?(?:at\s+)?(?:[Ll]ines?|L)\s*\d[^/]*"
    r"|[.!]+|[@^][^/]*|\?[\w-]+=[^/]*|\[\d+[:,]\s*\d+\])",
    re.ASCII,
)
# The whole text; names such as `(group)` and `[id]` are one segment.
_IN_BRACKETS = re.compile(r"\(([^()]*/[^()]*)\)|\[([^\[\]]*/[^\[\]]*)\]|\{([^{}]*/[^{}]*)\}")
_LIST_IN_BRACKETS = re.compile(r"\[[^\]]*[,\s][^\]]*\]")
_SEPARATOR = re.compile("[,;|\u3001\uff0c\uff1b]")
# Without blanks: `src/a:src/b`, and files with a symbol such as an arrow or a dot between them.
_JOINED_BY_COLON = re.compile(r"[^:]*/[^:]*:.*/.*")
_JOINED_BY_SYMBOL = re.compile(r"\.[A-Za-z][A-Za-z0-9_]{0,9}[^\w\s\x00-\x7f]+[\w.][^/]*[/.]")
_LIST_MARK = re.compile("[-*+\u2022\u2023\u25e6\u2013\u2014]|\\d+[.)]|\\+\\+\\+|---")
_SLASH_LOOKALIKE = re.compile("[\u2044\u2215\u2216\u29f8\u29f9\uff0f\uff3c]")
_FILE_END = re.compile(
    r"(?:[^/.]\.[A-Za-z]\w{0,9}|(?:^|/)\.[a-z][\w-]*|(?:^|/)(?:Dockerfile|LICENSE|Makefile|Procfile|README)|/\*\*?|^\*\*?)$",
    re.ASCII,
)
_PATH_START = re.compile(r"\.{1,2}/|[/~@*]")
# A later word that begins with one of these is another path: 'src/api docs/api'.
_ROOT_DIRECTORIES = frozenset(
    ".github api app apps backend bench bin build client cmd config configs core docs examples frontend include "  # noqa: SIM905 (a list would take a page)
    "infra internal lib libs migrations packages pkg public scripts server services spec src templates test tests "
    "tools web".split()
)
# Joiners are spelling in some scripts and part of emoji; next to ASCII they are only invisible.
_JOINER_IN_WORD = re.compile("(?<=[^\\x00-\\x7f])[\u200c\u200d](?=[^\\x00-\\x7f])")
_STRAY_SELECTOR = re.compile("[\\x00-\\x7f][\ufe00-\ufe0f](?!\u20e3)|^[\ufe00-\ufe0f]")
_UNUSUAL_SPACE = re.compile(r"[^\S ]")

_ANY_CHARACTER_HINT = "In a name that contains it, send '?' in its place."
_MAX_SUGGESTIONS = 3


def is_plain(surface: str) -> bool:
    """Whether a text needs neither cleaning nor a check."""
    return (
        _PLAIN.fullmatch(surface) is not None
        and _ELLIPSIS not in surface
        and surface[-1:] != "."
        and surface not in _MISSING_VALUES
    )


def clean(surface: str) -> str:
    """Remove surrounding quotes and line numbers, as often as there are any."""
    while True:
        cleaned = _LINE_SUFFIX.sub("", surface) or surface
        closing = _QUOTE_PAIRS.get(cleaned[:1])
        if closing is not None and len(cleaned) > 2 and cleaned[-1] == closing and closing not in cleaned[1:-1]:
            cleaned = cleaned[1:-1]
        if cleaned == surface:
            return surface
        surface = cleaned


def check_raw(surface: str) -> None:
    """Refuse what normalising would hide: a URL, and escapes.

    Raises:
        InvalidArgument: with the text to send.
    """
    if _URL.match(surface) and "//" in surface:
        raise _refuse("is a URL", "send the path relative to the root of the repository, such as 'src/api'.")
    if _BACKSLASH_ESCAPE.search(surface):
        raise _refuse("contains a backslash escape", "send the name as it is, with '/' between segments.")
    if "\\" in surface:
        suggestion = surface.replace("\\", "/")
        example = f", such as '{suggestion}'" if is_plain(suggestion) and not suggestion.startswith("/") else ""
        raise _refuse("contains a backslash", f"use '/' between segments{example}.")


def check(path: str) -> None:
    """Refuse a path or a glob that probably protects something else than the caller means.

    Args:
        path: normalised, one alternative of a surface.

    Raises:
        InvalidArgument: with the text to send.
    """
    if is_plain(path):
        return
    if path in _MISSING_VALUES:
        advice = f"send what you edit; for a file of that name, send '[{path[0]}]{path[1:]}'."
        raise _refuse(f"is '{path}', as programs write a missing value", advice)
    _check_invisible(path)
    _check_decoration(path)
    _check_escapes(path)
    if match := _TEXT_AFTER_FILE.fullmatch(path):
        raise _refuse("has text after the path", _suggest([match["file"]], "send"))
    if _LABEL.match(path):
        raise _refuse("has a label before the path", "send only the path relative to the root of the repository.")
    _check_several(path)
    if match := _IN_BRACKETS.fullmatch(path):
        raise _refuse("is in brackets", _suggest([match[match.lastindex or 0]], "send"))


def _check_invisible(path: str) -> None:
    if path.isascii():
        return
    if match := _SLASH_LOOKALIKE.search(path):
        raise _refuse(
            f"contains a character that only looks like a slash (U+{ord(match[0]):04X})",
            f"send '/' between segments. {_ANY_CHARACTER_HINT}",
        )
    character = validation.find_invisible_character(_JOINER_IN_WORD.sub("", path))
    if character is None and (match := _STRAY_SELECTOR.search(path) or _UNUSUAL_SPACE.search(path)):
        character = match[0][-1]
    if character is not None:
        raise _refuse(f"contains an invisible character (U+{ord(character):04X})", f"remove it. {_ANY_CHARACTER_HINT}")


def _check_decoration(path: str) -> None:
    if "\u2026" in path or any(s.startswith(_ELLIPSIS) or s.endswith(_ELLIPSIS) for s in path.split("/")):
        raise _refuse(
            "contains an ellipsis", "send the whole path, or a glob such as 'src/**' for all under a directory."
        )
    if (path.startswith('["') and path.endswith('"]')) or _QUOTED_LIST.search(path):
        raise _refuse_several(path)
    if (match := _QUOTE_CHARACTERS.search(path)) or path.startswith("'") or path.endswith("'"):
        quote = match[0] if match else "'"
        raise _refuse(f"contains a quote ({quote})", f"send the path without quotes. {_ANY_CHARACTER_HINT}")
    if path.startswith("@"):
        raise _refuse(
            "begins with '@'",
            f"{_suggest([path[1:]], 'send')[:-1]}; for a name that begins with '@', send '[@]{path[1:]}'.",
        )
    if _EXCLUSION.match(path):
        raise _refuse(f"begins with '{path[0]}'", "send what you edit: a path, a directory or a glob.")
    if "](" in path:
        raise _refuse("is a Markdown link", "send only the path, such as 'src/api'.")


def _check_escapes(path: str) -> None:
    if _PERCENT_ESCAPE.search(path) or _ENTITY.search(path):
        raise _refuse("contains an escape", f"send the name as it is in the repository. {_ANY_CHARACTER_HINT}")
    if _VARIABLE.search(path):
        raise _refuse("contains a variable", "send the path with its value, relative to the root of the repository.")
    if "<" in path or ">" in path:
        raise _refuse("contains '<' or '>'", f"send one path without placeholders. {_ANY_CHARACTER_HINT}")


def _check_several(path: str) -> None:
    if _LIST_IN_BRACKETS.fullmatch(path):
        raise _refuse_several(path)
    if _JOINED_BY_COLON.fullmatch(path):
        raise _refuse_several(path.replace(":", " "))
    # Members of a class do not separate paths.
    text = _CLASS.sub("?", path)
    if _SEPARATOR.search(text) or _JOINED_BY_SYMBOL.search(text):
        raise _refuse_several(path)
    words = text.split(" ")
    if len(words) == 1:
        return
    if not all(words):
        words = [word for word in words if word]
    if _LIST_MARK.fullmatch(words[0]):
        # The heads of a diff name `a/src/x` and `b/src/x`.
        is_diff = len(words[0]) == 3 and words[1][:2] in ("a/", "b/")
        raise _refuse("begins with a list mark", _suggest([words[1][2:] if is_diff else words[1]], "send"))
    roots = {word.split("/")[0] for word in words}
    if roots <= _ROOT_DIRECTORIES:
        raise _refuse_several(path)
    earlier_roots: set[str] = set()
    for word, next_word in pairwise(words):
        root, slash, _ = word.partition("/")
        if slash:
            earlier_roots.add(root)
        next_root, next_slash, _ = next_word.partition("/")
        is_next_path = next_slash and (next_root in _ROOT_DIRECTORIES or next_root in earlier_roots)
        if is_next_path or _FILE_END.search(word) or _PATH_START.match(next_word):
            raise _refuse_several(path)


def _refuse_several(path: str) -> InvalidArgument:
    # Commas within braces are alternatives of one path and were expanded before.
    parts = [
        part
        for part in re.split(r"[\s,;|\"'`\[\]\u3001\uff0c\uff1b]+", _JOINED_BY_SYMBOL.sub(_blank_symbols, path))
        if part not in ("", "and", "or", "&")
    ]
    advice = _suggest(parts, "call once for each:" if len(parts) > 1 else "send")
    return _refuse("names several paths", f"{advice} If it is one name, send '?' in place of each separator.")


def _blank_symbols(match: re.Match[str]) -> str:
    return re.sub(r"[^\w\s\x00-\x7f]+", " ", match[0])


def _suggest(paths: list[str], verb: str) -> str:
    shown = ", ".join(f"'{path}'" for path in paths[:_MAX_SUGGESTIONS])
    return f"{verb} {shown}{' and so on' if len(paths) > _MAX_SUGGESTIONS else ''}."


def _refuse(problem: str, advice: str) -> InvalidArgument:
    return InvalidArgument(f"surface {problem}; {advice}")
