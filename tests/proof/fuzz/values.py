"""Hypothesis strategies for arguments: valid by a tool's JSON Schema, at its limits, and beyond it."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mcp_gateway.tool_registry import Argument, Tool

# Values that a call of the prepared project accepts, by argument.
_MEANINGFUL: dict[str, list[Any]] = {
    "actor": ["bob", "alice"],
    "before": [1, 3, "adr", "bob"],
    "blocked_on": [[1], [2, 3], []],
    "body": ["look"],
    "current": [0, 7, 99],
    "idempotency_key": ["k1", "k2", "k3"],
    "lane": ["web", "api"],
    "number": [1, 2],
    "on": [1, 2],
    "owner": ["bob", "alice"],
    "participant_name": ["bob", "carol", "dora"],
    "post_id": [2, 4],
    "post_ids": [[2], [2, 4]],
    "ref": ["PR-1"],
    "reply_to": [2],
    "sequence": ["adr", "mig"],
    "since": [0, "2026-01-31T12:00:00Z", "2026-01-31"],
    "surface": ["src/a.py", "src/**/*.py", "docs/", "*"],
    "task_id": [1, 2, 3],
    "title": ["build"],
    "to_actor": ["bob"],
    "to_lane": ["web"],
    "until": ["2026-01-31T12:00:00+14:00"],
}
_LIMIT_LENGTHS = (0, 1, 16, 17, 64, 65, 129, 130, 140, 200, 201, 500, 501, 4000, 4001, 8000, 8001, 70_000)
_LIMIT_NUMBERS = (
    *(-(2**63) - 1, -(2**31), -1, 0, 1, 2, 4, 5, 12, 13, 50, 51, 200, 201, 500, 501, 1000, 1001, 86_400, 86_401),
    *(2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
)
_LIMIT_FLOATS = (0.5, -0.0, 600.0, 1e16, 1.7976931348623157e308, 5e-324, float("inf"), float("-inf"), float("nan"))
# NUL, controls, bidi, zero width, surrogates, combining marks, normalisation, SQL, templates, paths, JSON in text.
HOSTILE_TEXTS = (
    *(
        "\x00",
        "a\x00b",
        "\x07",
        "\x1b[31m",
        "\u202egnp",
        "\u2066",
        "\u200b",
        "\ufeff",
        "\ud800",
        "\udfff\ud800",
        "\ufffe",
    ),
    *(
        "e\u0301" * 30,
        "\u0130",
        "ﬀ" * 40,
        "\U0001f469\u200d\U0001f4bb",
        "\U0010ffff",
        " padded ",
        "\t",
        "\n",
        "line\nbreak",
    ),
    *(
        "' OR 1=1 --",
        '"; DROP TABLE event; --',
        "%s %(me)s {0}",
        "{{7*7}}",
        "<script>",
        "$1",
        "\\",
        "%00",
        "../../etc/passwd",
    ),
    *("null", "true", "NaN", "-1", "9" * 5000, "1e999", "0x10", "1,2", "[1,2]", '{"a":1}', "[" * 2000, '"' * 300),
    *(
        "*" * 200,
        "**/" * 60 + "x",
        "[!" * 90,
        "{a,b}" * 40,
        "src/a.py, src/b.py",
        "/etc",
        "C:\\x",
        "a//b/./c",
        "alice/bob/x",
    ),
)


def _is_short(value: Any) -> bool:
    # Of larger integers Python makes no text.
    return isinstance(value, int) or len(str(value)) < 50


_NUMBERS = st.one_of(st.sampled_from(_LIMIT_NUMBERS), st.integers())
_TEXTS = st.one_of(
    st.sampled_from(HOSTILE_TEXTS),
    st.text(max_size=80),
    st.builds(lambda char, length: char * length, st.characters(), st.sampled_from(_LIMIT_LENGTHS)),
)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, st.sampled_from(_LIMIT_FLOATS), st.floats(), _TEXTS)


def _nest(depth: int, value: Any) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


_DEEP = st.builds(_nest, st.sampled_from((1, 5, 60, 400)), _SCALARS)
ANYTHING: SearchStrategy[Any] = st.one_of(
    _SCALARS,
    _SCALARS,
    _DEEP,
    st.lists(_SCALARS, max_size=4),
    st.dictionaries(_TEXTS.filter(_is_short), _SCALARS, max_size=3),
    st.builds(lambda value, count: [value] * count, _SCALARS.filter(_is_short), st.sampled_from((100, 101, 3000))),
)


def arguments_of(tool: Tool) -> SearchStrategy[Any]:
    """Arguments of a call: mostly an object that is valid but for one or two of its values."""
    by_name = {argument.name: argument for argument in tool.arguments}
    required = {name: _valid(by_name[name]) for name in by_name if by_name[name].required}
    optional = {name: _valid(argument) for name, argument in by_name.items() if name not in required}
    valid = st.fixed_dictionaries(required, optional=optional)
    name = st.sampled_from(sorted(by_name)) if by_name else st.just("x")
    return st.one_of(
        valid,
        st.builds(_replace, valid, name, ANYTHING),
        st.builds(_replace, valid, name, _TEXTS),
        st.builds(_replace, valid, name, _NUMBERS),
        st.builds(_replace, valid, _TEXTS.filter(_is_short), ANYTHING),
        st.builds(_remove, valid, name),
        st.dictionaries(st.one_of(name, _TEXTS.filter(_is_short)), ANYTHING, max_size=4),
        ANYTHING,
    )


def _valid(argument: Argument) -> SearchStrategy[Any]:
    """Values that the schema of an argument accepts, in the right type and as unambiguous text."""
    schema = argument.schema
    strategies: list[SearchStrategy[Any]] = []
    if argument.name in _MEANINGFUL:
        strategies.append(st.sampled_from(_MEANINGFUL[argument.name]))
    if "enum" in schema:
        strategies.append(st.sampled_from(schema["enum"]))
    elif schema["type"] == "integer":
        low, high = schema.get("minimum", 1), schema.get("maximum", 2**53 - 1)
        strategies += [st.sampled_from((low, high)), st.integers(low, high), st.integers(low, high).map(str)]
    elif schema["type"] == "boolean":
        strategies += [st.booleans(), st.sampled_from(("true", "False"))]
    elif schema["type"] == "array":
        strategies.append(st.lists(st.integers(1, 9), max_size=5))
    elif "pattern" in schema:
        strategies.append(st.from_regex(schema["pattern"], fullmatch=True))
    else:
        strategies.append(st.text(min_size=1, max_size=min(60, schema.get("maxLength", 60))))
    return st.one_of(strategies)


def _replace(arguments: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**arguments, name: value}


def _remove(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in arguments.items() if each != name}
