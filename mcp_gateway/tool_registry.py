"""Registry of MCP tools; a tool's name, description, schema and validation come from a typed function."""

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
from bus.scopes import Scope
from mcp_gateway.argument_coercion import coerce_value, describe_right_form, describe_sent, parse_object_text

_CONTEXT_PARAMETERS = ("conn", "ctx")
_PAGE_SIZE_ARGUMENT = "limit"
_ERROR_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_ERROR_FIELD = re.compile(r"field `([^`]*)`")


@dataclass(frozen=True)
class Argument:
    """One argument of a tool.

    Attributes:
        name: its name.
        schema: its JSON Schema.
        expected: its type and bounds in words, for error messages and the reference.
        required: whether it must be sent.
        default: its default; None if it is required or has an empty one.
    """

    name: str
    schema: dict[str, Any]
    expected: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Tool:
    """A tool: a function `(conn, ctx, **arguments)` and its description for clients.

    Attributes:
        name: the name of the tool and of the function.
        description: the docstring of the function.
        function: calls the engine.
        arguments: the arguments after `conn` and `ctx`.
        arguments_type: the msgspec struct that validates the arguments.
        annotations: the annotations of the protocol, without default values.
        transaction: whether the function is several statements that belong in one transaction.
        scope: what a token must allow. Tools of the scope `admin` are only for project-admins.
        reports_unread: whether its results carry `_unread_posts`.
        notifies: topics of the change notification after a successful call.
        is_long_poll: whether the function only begins a wait, which the gateway then keeps open.
        always_load: whether clients that load tools on demand load it at once.
        batch: whether calls may share a connection with other calls ("read"), or with other writes of the project
            ("write"); None if the function needs a connection of its own.
    """

    name: str
    description: str
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    arguments_type: type
    annotations: dict[str, bool]
    transaction: bool
    scope: Scope
    reports_unread: bool
    notifies: frozenset[str]
    is_long_poll: bool
    always_load: bool
    batch: Literal["read", "write"] | None

    @property
    def admin_only(self) -> bool:
        """Whether only project-admins see it in the list (the engine refuses other callers in any case)."""
        return self.scope == "admin"

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments. Optional ones may also be null, which it omits to save bytes."""
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {argument.name: argument.schema for argument in self.arguments},
        }
        required = [argument.name for argument in self.arguments if argument.required]
        if required:
            schema["required"] = required
        return schema

    def decode(self, arguments: Any) -> dict[str, Any]:
        """Validate the arguments of a call and return them by name, without those that are absent or null.

        Numbers, booleans and lists may also be unambiguous text, and the arguments one JSON text.

        Raises:
            InvalidArgument: sentences that name the argument, what was sent and what to send.
        """
        try:
            decoded = self._decode_strictly(arguments)
        except msgspec.ValidationError:
            decoded = self._decode_leniently(arguments)
        return {
            argument.name: value
            for argument in self.arguments
            if (value := getattr(decoded, argument.name)) is not None
        }

    def _decode_strictly(self, arguments: Any) -> Any:
        try:
            return msgspec.convert({} if arguments is None else arguments, self.arguments_type)
        except UnicodeEncodeError:
            # In a value, the engine names the argument.
            raise InvalidArgument(
                f"The name of an argument contains half of a surrogate pair; {self.name} takes: {self.argument_names}."
            ) from None

    def _decode_leniently(self, arguments: Any) -> Any:
        arguments = parse_object_text(arguments)
        if not isinstance(arguments, dict):
            raise InvalidArgument(
                f"{self.name} takes its arguments as one JSON object, and {describe_sent(arguments)} was sent;"
                f" it takes: {self.argument_names}."
            )
        by_name = {argument.name: argument for argument in self.arguments}
        coerced = {
            name: coerce_value(value, by_name[name].schema) if name in by_name else value
            for name, value in arguments.items()
        }
        # A required argument that is null is missing, like one that was left out.
        coerced = {name: value for name, value in coerced.items() if value is not None or name not in by_name}
        try:
            return self._decode_strictly(coerced)
        except msgspec.ValidationError as error:
            raise InvalidArgument(self._explain_validation_error(str(error), arguments)) from None

    @property
    def argument_names(self) -> str:
        """The names of the arguments, for a sentence."""
        return ", ".join(argument.name for argument in self.arguments) or "none"

    def _explain_validation_error(self, message: str, arguments: dict[str, Any]) -> str:
        field = _ERROR_FIELD.search(message)
        field_name = field.group(1).encode("ascii", "replace").decode()[:40] if field else ""
        if "unknown field" in message:
            return f"{self.name} takes no argument {field_name}; it takes: {self.argument_names}."
        by_name = {argument.name: argument for argument in self.arguments}
        if "missing required" in message and field_name in by_name:
            return f"{self.name} needs {field_name}: {by_name[field_name].expected}."
        path = _ERROR_PATH.search(message)
        invalid_name = re.split(r"[.\[]", path.group(1))[0] if path else ""
        if invalid_name not in by_name:
            return f"{self.name} takes its arguments as one JSON object; it takes: {self.argument_names}."
        argument, value = by_name[invalid_name], arguments[invalid_name]
        sentence = f"{invalid_name} must be {argument.expected}; {describe_sent(value)} was sent."
        schema = argument.schema if argument.default is None else {**argument.schema, "default": argument.default}
        return f"{sentence} {describe_right_form(invalid_name, value, schema)}".strip()


_registry: dict[str, Tool] = {}


def tool(
    *,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    transaction: bool = False,
    scope: Scope = "write",
    reports_unread: bool = True,
    notifies: str = "",
    is_long_poll: bool = False,
    always_load: bool = False,
    batch: Literal["read", "write"] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function `(conn, ctx, …)` as the MCP tool of the same name, with its docstring as the description.

    `read_only`, `idempotent` and `destructive` become the tool's annotations; Tool describes the other arguments. The
    scope of a tool that is `read_only` is `read`. `notifies` lists its topics separated by spaces.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        annotations = typing.get_type_hints(function, include_extras=True)
        arguments = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in list(inspect.signature(function).parameters.values())[len(_CONTEXT_PARAMETERS) :]:
            annotation = annotations[parameter.name]
            required = parameter.default is inspect.Parameter.empty
            schema, expected = _describe_type(annotation)
            default = None if required else parameter.default or None
            if parameter.name == _PAGE_SIZE_ARGUMENT:
                # A page says where the next one begins, so a model needs neither its usual nor its largest size.
                schema.pop("maximum", None)
            # False and "" are what a model assumes of an argument that it leaves out.
            elif default is not None and default != schema.get("enum", [None])[0]:
                schema["default"] = default
            arguments.append(Argument(parameter.name, schema, expected, required, default))
            if required:
                fields.append((parameter.name, annotation))
            else:
                fields.append((parameter.name, annotation | None, None))
        _registry[name] = Tool(
            name=name,
            description=" ".join((function.__doc__ or "").split()),
            function=function,
            arguments=tuple(arguments),
            arguments_type=msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True),
            annotations=_build_annotations(read_only, idempotent, destructive),
            transaction=transaction,
            scope="read" if read_only else scope,
            reports_unread=reports_unread,
            notifies=frozenset(notifies.split()),
            is_long_poll=is_long_poll,
            always_load=always_load,
            batch="read" if read_only else batch,
        )
        return function

    return register


def registered_tools() -> dict[str, Tool]:
    """Return the tools registered so far, by name, in the order of registration."""
    return dict(_registry)


def _build_annotations(read_only: bool, idempotent: bool, destructive: bool) -> dict[str, bool]:
    """Build the annotations, without those that equal the protocol's default: every byte is context."""
    # Codex asks a person before a call that might reach beyond the bus, so an unattended one could not write at all.
    if read_only:
        return {"readOnlyHint": True, "openWorldHint": False}
    annotations = {"idempotentHint": True} if idempotent else {}
    if not destructive:
        annotations["destructiveHint"] = False
    return {**annotations, "openWorldHint": False}


_SCALAR_TYPES = {str: ("string", "text"), int: ("integer", "a whole number"), bool: ("boolean", "true or false")}


def _describe_type(annotation: Any) -> tuple[dict[str, Any], str]:
    """Return the JSON Schema of a type, and its description for a sentence."""
    meta = None
    if get_origin(annotation) is typing.Annotated:
        annotation, *extras = get_args(annotation)
        meta = next((extra for extra in extras if isinstance(extra, Meta)), None)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        (inner_type,) = [member for member in get_args(annotation) if member is not type(None)]
        return _describe_type(inner_type)
    if get_origin(annotation) is Literal:
        choices = list(get_args(annotation))
        schema: dict[str, Any] = {"type": "string", "enum": choices}
        description = f"one of: {', '.join(choices)}"
    elif get_origin(annotation) is list:
        item_schema, item_description = _describe_type(get_args(annotation)[0])
        schema = {"type": "array", "items": item_schema}
        description = f"a list, each {item_description}"
    else:
        json_type, description = _SCALAR_TYPES[annotation]
        schema = {"type": json_type}
    if meta is not None:
        description = _apply_constraints(schema, meta, description)
    return schema, description


def _is_long_text(max_length: int | None) -> bool:
    return max_length is not None and max_length >= limits.MAX_DETAIL_LENGTH


def _apply_constraints(schema: dict[str, Any], meta: Meta, description: str) -> str:
    """Add the constraints to the schema, and return the description with the bounds."""
    # Bounds that models keep to are omitted to save bytes: they send no empty text, no negative id, no number beyond
    # 2^53, no line of two hundred characters, no hundred ids, no seconds beyond a day, and names of sequences as the
    # description shows them. All bounds are checked, and the error says what to send.
    keywords = {
        "minimum": None if meta.ge in (0, 1) else meta.ge,
        "maximum": None if meta.le in (limits.MAX_INTEGER, limits.MAX_DURATION_SECONDS) else meta.le,
        "minLength": None if meta.min_length == 1 else meta.min_length,
        "maxLength": meta.max_length if _is_long_text(meta.max_length) and schema["type"] == "string" else None,
        "description": meta.description,
    }
    schema |= {key: value for key, value in keywords.items() if value is not None}
    if meta.ge is not None and meta.le is not None:
        return f"{description} from {meta.ge} to {meta.le}"
    if meta.pattern is not None:
        return f"{description} that matches {meta.pattern}"
    if meta.max_length is not None:
        bounds = f"of {meta.min_length or 0} to {meta.max_length}"
        if schema["type"] == "array":
            return description.replace("a list", f"a list {bounds} entries", 1)
        return f"{description} {bounds} characters"
    return description
