"""Names that look alike: the skeleton of Unicode Technical Standard 39, over folded names.

`confusables.txt` has one line per prototype: the prototype, and the characters that look like it. It was derived from
Unicode's confusables by way of the package confusable-homoglyphs 3.3.1 (MIT), without the characters that
`validation.label_key` replaces anyway.
"""

import unicodedata
from functools import cache
from importlib import resources

from bus.rules.validation import label_key


def skeleton(name: str) -> str:
    """Return what two names that look alike have in common; it is not meant to be shown.

    A capital I looks like a small L, and only before the name is folded.
    """
    table = _load_table()
    folded = label_key(name.replace("I", "l"))
    return label_key(unicodedata.normalize("NFD", folded).translate(table))


@cache
def _load_table() -> dict[int, str]:
    text = resources.files("bus.rules").joinpath("confusables.txt").read_text(encoding="utf-8")
    lines = (line.split(" ") for line in text.splitlines())
    return {ord(character): prototype for prototype, characters in lines for character in characters}
