"""Sentences for parameters that the SDK refuses: which one, what was sent, and what to send."""

from typing import Final

from pydantic import ValidationError

from mcp_gateway.argument_coercion import describe_sent

_MAX_SENTENCES = 3
_OBJECT: Final = "an object"
_EXPECTED_BY_TYPE: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
}
_EXPECTED_BY_NAME: Final = {
    "params": _OBJECT,
    "name": "text, a name of the list",
    "uri": "text, an address of resources/list",
    "arguments": _OBJECT,
    "_meta": _OBJECT,
    "progressToken": "text or a whole number",
    "cursor": "text",
    "notifications": _OBJECT,
    "protocolVersion": 'text such as "2025-11-25"',
    "capabilities": "an object, {} for none",
    "clientInfo": "an object with name and version",
    "version": "text",
}
# The SDK appends the alternative of a union to the location of an error.
_UNION_ALTERNATIVES: Final = frozenset({"str", "int", "float", "bool"})


def explain_invalid_params(method: str, error: ValidationError) -> str:
    """Explain why the SDK refuses the parameters of a request.

    Args:
        method: the method of the request.
        error: the SDK's error, whose own text is for programmers.
    """
    sentences: dict[str, str] = {}
    for details in error.errors(include_url=False, include_context=False):
        path = [str(part) for part in details["loc"]]
        if len(path) > 1 and path[-1] in _UNION_ALTERNATIVES:
            path.pop()
        name = ".".join(path[1:] if path[:1] == ["params"] and len(path) > 1 else path) or "params"
        expected = _EXPECTED_BY_NAME.get(path[-1] if path else "params") or _EXPECTED_BY_TYPE.get(details["type"])
        if details["type"] == "missing":
            sentences.setdefault(name, f"{method} needs {name}: {expected or 'see the protocol'}.")
        elif expected is not None:
            sentences.setdefault(name, f"{name} must be {expected}; {describe_sent(details['input'])} was sent.")
        else:
            sentences.setdefault(name, f"{name}: {details['msg']}; {describe_sent(details['input'])} was sent.")
    return " ".join(list(sentences.values())[:_MAX_SENTENCES]) or f"The parameters of {method} are invalid."
