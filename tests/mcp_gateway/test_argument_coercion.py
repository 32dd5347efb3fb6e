"""Numbers, booleans and lists may be unambiguous text; other values get an error that shows the right form."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import limits
from bus.errors import InvalidArgument
from mcp_gateway.argument_coercion import describe_sent
from mcp_gateway.tool_registry import Argument, Tool
from mcp_gateway.tools import all_tools
from tests.mcp_gateway.test_bad_input import required_arguments

_NUMBER_SPELLINGS: list[Callable[[int], object]] = [
    lambda number: str(number),
    lambda number: f" {number}\n",
    lambda number: f"{number}.0",
    lambda number: f"+{number}",
    lambda number: f"0{number}",
    lambda number: f'"{number}"',
    lambda number: float(number),
]
_AMBIGUOUS_NUMBERS = [
    "",
    " ",
    "ten",
    "1.5",
    "1,000",
    "1 000",
    "1_000",
    "1e3",
    "0x10",
    "600s",
    "10 minutes",
    "#7",
    "--1",
    "\uff11",
    "Infinity",
    "NaN",
    "true",
    "[1]",
    '"1',
    "9" * 400,
    1.5,
    True,
    [1],
    {},
]
_AMBIGUOUS_BOOLEANS = ["", "yes", "no", "on", "1", "0", "t", "true false", "truee", 1, 0, 1.0, [], [True], {}]
_AMBIGUOUS_LISTS = [
    "",
    "x",
    "1;2",
    "1 2",
    "1,x",
    "1,,2",
    "[1,",
    '{"a": 1}',
    "[[1]]",
    "true",
    True,
    {},
    ["x"],
    [[1]],
    1.5,
]


def _arguments_of(kind: str) -> list[Any]:
    return [
        pytest.param(tool, argument, id=f"{tool.name}-{argument.name}")
        for tool in all_tools().values()
        for argument in tool.arguments
        if argument.schema["type"] == kind
    ]


def _valid_number(argument: Argument) -> int:
    return int(argument.default or max(1, argument.schema.get("minimum", 1)))


def _decode(tool: Tool, argument: Argument, value: Any) -> Any:
    return tool.decode({**required_arguments(tool), argument.name: value})


def _refusal(tool: Tool, argument: Argument, value: Any) -> str:
    with pytest.raises(InvalidArgument) as refused:
        _decode(tool, argument, value)
    return refused.value.message


@pytest.mark.parametrize(("tool", "argument"), _arguments_of("integer"))
def test_every_number_may_be_text(tool: Tool, argument: Argument) -> None:
    number = _valid_number(argument)
    expected = _decode(tool, argument, number)
    assert expected[argument.name] == number
    for spell in _NUMBER_SPELLINGS:
        decoded = _decode(tool, argument, spell(number))
        assert decoded == expected
        assert type(decoded[argument.name]) is int


@pytest.mark.parametrize(("tool", "argument"), _arguments_of("integer"))
def test_an_ambiguous_number_is_refused_with_the_right_form(tool: Tool, argument: Argument) -> None:
    for value in _AMBIGUOUS_NUMBERS:
        message = _refusal(tool, argument, value)
        assert message.startswith(f"{argument.name} must be a whole number"), message
        assert f'Send "{argument.name}": {_valid_number(argument)}' in message
        if isinstance(value, str):
            assert "text" in message
            assert message.endswith(", without quotes.")


@pytest.mark.parametrize(("tool", "argument"), _arguments_of("boolean"))
def test_every_boolean_may_be_text(tool: Tool, argument: Argument) -> None:
    for text, value in (("true", True), ("True", True), (" TRUE ", True), ("false", False), ('"false"', False)):
        assert _decode(tool, argument, text) == _decode(tool, argument, value)
    for ambiguous in _AMBIGUOUS_BOOLEANS:
        message = _refusal(tool, argument, ambiguous)
        assert f"{argument.name} must be true or false" in message
        assert ("text" in message) == isinstance(ambiguous, str)


@pytest.mark.parametrize(("tool", "argument"), _arguments_of("array"))
def test_every_list_may_be_text(tool: Tool, argument: Argument) -> None:
    expected = _decode(tool, argument, [1, 2])
    spellings: list[object] = [
        "[1,2]",
        " [1, 2] ",
        "1,2",
        "1, 2",
        '["1", "2"]',
        '"1,2"',
        ["1", "2"],
        [1.0, 2.0],
        ["1", 2],
    ]
    for value in spellings:
        assert _decode(tool, argument, value) == expected, value
    one_item: list[object] = [1, "1", "[1]", 1.0, ["1"]]
    for value in one_item:
        assert _decode(tool, argument, value) == _decode(tool, argument, [1]), value
    for value in _AMBIGUOUS_LISTS:
        message = _refusal(tool, argument, value)
        assert f'Send "{argument.name}": [1, 2]' in message, (value, message)


@pytest.mark.parametrize("kind", ["integer", "boolean", "array"])
def test_the_text_null_is_an_absent_argument(kind: str) -> None:
    for parameters in _arguments_of(kind):
        tool, argument = parameters.values
        for text in ("null", "None", " NULL "):
            if argument.required:
                assert f"needs {argument.name}" in _refusal(tool, argument, text)
            else:
                assert argument.name not in _decode(tool, argument, text)


@pytest.mark.parametrize(("tool", "argument"), _arguments_of("string"))
def test_a_text_argument_is_never_converted(tool: Tool, argument: Argument) -> None:
    if "enum" not in argument.schema and "pattern" not in argument.schema:
        assert _decode(tool, argument, "null")[argument.name] == "null"
        assert _decode(tool, argument, "7")[argument.name] == "7"
    for value in (7, 1.5, True, ["x"], {"a": 1}):
        message = _refusal(tool, argument, value)
        assert f"; {describe_sent(value)} was sent." in message
        assert f'"{argument.name}": "' in message


@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_the_arguments_may_be_one_json_text(tool: Tool) -> None:
    arguments = required_arguments(tool)
    expected = tool.decode(arguments)
    text = json.dumps(arguments)
    assert tool.decode(text) == expected
    assert tool.decode(f"\n{text} ") == expected
    assert tool.decode(json.dumps(text)) == expected


@pytest.mark.parametrize("empty", [None, [], {}, "", " ", "{}", "[]", "null", '""'])
def test_empty_arguments_are_absent_arguments(empty: Any) -> None:
    tools = all_tools()
    assert tools["whoami"].decode(empty) == {}
    with pytest.raises(InvalidArgument, match="claim needs sequence"):
        tools["claim"].decode(empty)


@pytest.mark.parametrize("arguments", [7, True, "text", "[1]", "7", [1], ["sequence"], '{"a": NaN}', '"' * 9, "{" * 9])
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        all_tools()["claim"].decode(arguments)
    assert refused.value.message == (
        f"claim takes its arguments as one JSON object, and {describe_sent(arguments)} was sent;"
        " it takes: sequence, note, idempotency_key."
    )


def test_half_of_a_surrogate_pair_in_a_name_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match="name of an argument contains half of a surrogate pair; post takes: body"
    ):
        all_tools()["post"].decode({"body": "x", "\ud800": 1})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_any_value_is_decoded_or_described_in_a_short_sentence(value: Any) -> None:
    tool = all_tools()["ack"]
    for name in ("post_id", "post_ids"):
        message, decoded = "", {}
        try:
            decoded = tool.decode({name: value})
        except InvalidArgument as refused:
            message = refused.message
        if message:
            assert message.encode()
            assert len(message) < 300
        else:
            numbers = decoded.get("post_ids", [decoded.get("post_id", 1)])
            assert all(type(number) is int and 1 <= number <= limits.MAX_INTEGER for number in numbers)
