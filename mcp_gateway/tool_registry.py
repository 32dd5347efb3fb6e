"""From a typed function to an MCP tool: its name, description, schema and argument checks come from the function."""

import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from bus import limits
from bus.errors import InvalidArgument

_CONTEXT_PARAMETERS = ("conn", "ctx")
_ERROR_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_ERROR_FIELD = re.compile(r"field `([^`]*)`")


@dataclass(frozen=True)
class Argument:
    """One argument of a tool: what is sent, and how a sentence describes it."""

    name: str
    schema: dict[str, Any]
    expected: str
    required: bool


@dataclass(frozen=True)
class Tool:
    """A tool: a function `(conn, ctx, **arguments)`, and what clients are told about it.

    Attributes:
        transaction: whether the function is several statements that belong in one transaction.
        admin: whether only project-admins are shown it (the engine refuses others in any case).
        marks_unread: whether its answers carry `_unread_posts`.
        touches: what others may want to hear of after a call; the kinds of hints.py.
        waits: whether the function only begins a wait, which the gateway then keeps open.
    """

    name: str
    description: str
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    arguments_type: type
    annotations: dict[str, bool]
    transaction: bool
    admin_only: bool
    reports_unread: bool
    notifies: frozenset[str]
    is_long_poll: bool

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments. Optional ones may also be null, which is not worth the bytes to say."""
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {argument.name: argument.schema for argument in self.arguments},
            "additionalProperties": False,
        }
        required = [argument.name for argument in self.arguments if argument.required]
        if required:
            schema["required"] = required
        return schema

    def decode(self, arguments: Any) -> dict[str, Any]:
        """Check the arguments of a call and return them by name, without those that are absent or null.

        Raises:
            InvalidArgument: one sentence that says what to send instead.
        """
        try:
            decoded: Any = msgspec.convert({} if arguments is None else arguments, self.arguments_type)
        except msgspec.ValidationError as error:
            raise InvalidArgument(self._explain_validation_error(str(error))) from None
        except UnicodeEncodeError:
            raise InvalidArgument("Arguments hold half of a surrogate pair; send valid Unicode.") from None
        return {
            argument.name: value
            for argument in self.arguments
            if (value := getattr(decoded, argument.name)) is not None
        }

    def _explain_validation_error(self, message: str) -> str:
        field = _ERROR_FIELD.search(message)
        named = field.group(1).encode("ascii", "replace").decode()[:40] if field else ""
        takes = ", ".join(argument.name for argument in self.arguments) or "none"
        if "unknown field" in message:
            return f"{self.name} takes no argument {named}; it takes: {takes}."
        by_name = {argument.name: argument for argument in self.arguments}
        if "missing required" in message and named in by_name:
            return f"{self.name} needs {named}: {by_name[named].expected}."
        place = _ERROR_PATH.search(message)
        at = re.split(r"[.\[]", place.group(1))[0] if place else ""
        if at in by_name:
            return f"{at} must be {by_name[at].expected}."
        return f"{self.name} takes its arguments as one JSON object; it takes: {takes}."


_registry: dict[str, Tool] = {}


def tool(
    *,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    transaction: bool = False,
    admin_only: bool = False,
    reports_unread: bool = True,
    notifies: str = "",
    is_long_poll: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function `(conn, ctx, …)` an MCP tool of the same name; its docstring is the description.

    The keyword arguments `read_only`, `idempotent` and `destructive` become the tool's annotations.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        hints = typing.get_type_hints(function, include_extras=True)
        arguments = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in list(inspect.signature(function).parameters.values())[len(_CONTEXT_PARAMETERS) :]:
            hint = hints[parameter.name]
            required = parameter.default is inspect.Parameter.empty
            schema, described = _describe_type(hint)
            if not required and parameter.default is not None:
                schema["default"] = parameter.default
            arguments.append(Argument(parameter.name, schema, described, required))
            if required:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint | None, None))
        _registry[name] = Tool(
            name=name,
            description=" ".join((function.__doc__ or "").split()),
            function=function,
            arguments=tuple(arguments),
            arguments_type=msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True),
            annotations=_build_annotations(read_only, idempotent, destructive),
            transaction=transaction,
            admin_only=admin_only,
            reports_unread=reports_unread,
            notifies=frozenset(notifies.split()),
            is_long_poll=is_long_poll,
        )
        return function

    return register


def registered_tools() -> dict[str, Tool]:
    """The tools that were registered so far, by name, in the order of registration."""
    return dict(_registry)


def _build_annotations(read_only: bool, idempotent: bool, destructive: bool) -> dict[str, bool]:
    """The hints, without those whose default in the protocol is the truth already: every byte is context."""
    if read_only:
        return {"readOnlyHint": True}
    hints = {"idempotentHint": True} if idempotent else {}
    return hints if destructive else {**hints, "destructiveHint": False}


_SCALAR_TYPES = {str: ("string", "text"), int: ("integer", "a whole number"), bool: ("boolean", "true or false")}


def _describe_type(annotation: Any) -> tuple[dict[str, Any], str]:
    """JSON Schema of a type, and the words for it in a sentence."""
    meta = None
    if get_origin(annotation) is typing.Annotated:
        annotation, *extras = get_args(annotation)
        meta = next((extra for extra in extras if isinstance(extra, Meta)), None)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        (inner,) = [one for one in get_args(annotation) if one is not type(None)]
        return _describe_type(inner)
    if get_origin(annotation) is Literal:
        choices = list(get_args(annotation))
        schema: dict[str, Any] = {"type": "string", "enum": choices}
        words = f"one of: {', '.join(choices)}"
    elif get_origin(annotation) is list:
        items, item_words = _describe_type(get_args(annotation)[0])
        schema = {"type": "array", "items": items}
        words = f"a list, each entry {item_words}"
    else:
        kind, words = _SCALAR_TYPES[annotation]
        schema = {"type": kind}
    if meta is not None:
        words = _apply_constraints(schema, meta, words)
    return schema, words


def _apply_constraints(schema: dict[str, Any], meta: Meta, description: str) -> str:
    # What goes without saying is not said: a model sends no empty text and no number past 2^53.
    keywords = {
        "minimum": meta.ge,
        "maximum": None if meta.le == limits.MAX_INTEGER else meta.le,
        "minLength": None if meta.min_length == 1 else meta.min_length,
        "maxLength": meta.max_length,
        "pattern": meta.pattern,
        "description": meta.description,
    }
    if schema["type"] == "array":
        keywords["maxItems"] = keywords.pop("maxLength")
        del keywords["minLength"]
    schema |= {key: value for key, value in keywords.items() if value is not None}
    if meta.ge is not None and meta.le is not None:
        return f"{description} from {meta.ge} to {meta.le}"
    if meta.pattern is not None:
        return f"{description} that matches {meta.pattern}"
    if meta.max_length is not None:
        unit = "entries" if schema["type"] == "array" else "characters"
        return f"{description} of {meta.min_length or 0} to {meta.max_length} {unit}"
    return description
