"""Names of variables that are not settings but look like one: a misspelt setting must not be ignored silently."""

import re
from collections.abc import Collection, Iterable, Iterator

# Variables with our prefix that no settings class reads: those of the command line, of the kit and between processes.
KNOWN_NAMES = frozenset(
    {
        "LLM_BUS_CLIENTS",
        "LLM_BUS_COMMAND",
        "LLM_BUS_CONFIG",
        "LLM_BUS_DATA",
        "LLM_BUS_INVITE",
        "LLM_BUS_LISTENER_FD",
        "LLM_BUS_METRICS_SOCKET",
        "LLM_BUS_LOOK_SECONDS",
        "LLM_BUS_OVERRIDE",
        "LLM_BUS_PARENT_FD",
        "LLM_BUS_PG_BIN",
        "LLM_BUS_TEST_TIME_LIMITS",
        "LLM_BUS_TOKEN",
        "LLM_BUS_URL",
        "LLM_BUS_WATCHED",
    }
)
_PREFIX = "LLM_BUS_"
# Kubernetes adds such variables for each service of a namespace.
_SERVICE_NAME = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")
# A shorter name is too close to those of other programs.
_MIN_LENGTH = 7


def find_problems(given: Iterable[str], settings: Collection[str]) -> Iterator[str]:
    """Yield a problem for each given name that is one typing error away from a setting, or has our prefix.

    Args:
        given: names of variables that have a value.
        settings: names that the process reads.
    """
    names = set(given)
    unset = [name for name in settings if name not in names and len(name) >= _MIN_LENGTH]
    for name in sorted(names - set(settings) - KNOWN_NAMES):
        if not name.isupper() or _SERVICE_NAME.search(name):
            continue
        # An unset setting: beside a given one, the similar name is that of another program.
        meant = next((setting for setting in unset if is_one_error_away(name, setting)), None)
        if meant is not None:
            yield f"{name} is not a setting. Did you mean {meant}? Rename it, or unset it."
        elif name.startswith(_PREFIX):
            yield f"{name} is not a setting; docs/reference/settings.md lists all of them. Unset it."


def is_one_error_away(text: str, other: str) -> bool:
    """Whether one character was replaced, inserted or left out, or two neighbours were exchanged."""
    if text == other or abs(len(text) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(text), len(other)) and text[start] == other[start]:
        start += 1
    rest, other_rest = text[start:], other[start:]
    if len(rest) == len(other_rest):
        return rest[1:] == other_rest[1:] or (rest[1::-1] == other_rest[:2] and rest[2:] == other_rest[2:])
    longer, shorter = sorted((rest, other_rest), key=len, reverse=True)
    return longer[1:] == shorter
