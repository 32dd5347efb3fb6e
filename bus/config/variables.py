"""Environment variables: how a settings class declares them, how they are read, and what is reported about them.

A field of a settings class names its variable in its annotation:

    port: Annotated[int, Variable("PORT", whole_number(0, 65535), "port that this process listens on")] = 8788

`Environment` reads all fields, collects every wrong variable into one error, and records the values in force, masked.
docs/reference/settings.md is generated from the same declarations.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, get_type_hints
from urllib.parse import urlsplit

from bus.config.redaction import MASK, MaskedSetting, Secret, mask_url

T = TypeVar("T")
_MAX_SHOWN_LENGTH = 500
_MAX_QUOTED_LENGTH = 100


class SettingError(ValueError):
    """Settings are missing or malformed; each problem names its variable, what was given and what to write.

    Attributes:
        problems: one sentence or more for each wrong setting; never contains a secret.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        if len(problems) == 1:
            super().__init__(problems[0])
        else:
            super().__init__("\n- ".join((f"{len(problems)} settings are wrong:", *problems)))


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A form of values.

    Attributes:
        name: what a value is, for the reference page.
        allowed: which values are accepted, for the reference page.
        parse: converts a text without surrounding spaces; raises ValueError with a message that follows the name of
            the variable.
        format: converts a value back into text, for the operator console and the reference page.
        is_secret: whether no part of the value may be shown.
        is_raw: whether the text is used as it is: spaces and an empty text count.
    """

    name: str
    allowed: str
    parse: Callable[[str], T]
    format: Callable[[T], str] = str
    is_secret: bool = False
    is_raw: bool = False


@dataclass(frozen=True)
class Variable(Generic[T]):
    """An environment variable that holds a setting.

    Attributes:
        meaning: a phrase for the reference page.
        default_text: describes a default that the field does not show, such as a computed one.
        processes: which processes read it; empty: those of its settings class.
        if_missing: the error for a required variable that is not set.
    """

    name: str
    kind: Kind[T]
    meaning: str
    default_text: str = ""
    processes: tuple[str, ...] = ()
    if_missing: str = ""


class EnvironmentSettings:
    """Base of the settings classes: frozen dataclasses whose repr shows no secret."""

    def __repr__(self) -> str:
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        shown = (f"{name}={mask_url(value) if isinstance(value, str) else value!r}" for name, value in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def variables_of(settings_class: type) -> dict[str, tuple[Variable[Any], ...]]:
    """Return the variables of each field of a settings class, by the name of the field."""
    hints = get_type_hints(settings_class, include_extras=True)
    return {
        field.name: tuple(item for item in getattr(hints[field.name], "__metadata__", ()) if isinstance(item, Variable))
        for field in dataclasses.fields(settings_class)
    }


class Environment:
    """Reads settings from variables, and records the values in force and the problems.

    Used as a context manager: `SettingError` with all problems is raised at the end of the outermost block, so that
    one start names every wrong variable of all settings classes.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._settings: dict[str, MaskedSetting] = {}
        self._problems: list[str] = []
        self._depth = 0

    def __enter__(self) -> Self:
        self._depth += 1
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth or (exc is not None and not isinstance(exc, SettingError)):
            return
        if isinstance(exc, SettingError):
            self.add_problems(exc.problems)
        if self._problems:
            raise SettingError(*self._problems) from None

    def add_problems(self, problems: Iterable[str]) -> None:
        """Add problems that concern several variables."""
        self._problems += (problem for problem in problems if problem not in self._problems)

    def is_given(self, name: str) -> bool:
        """Return whether a variable is set and not blank."""
        return bool(self._env.get(name, "").strip())

    def read(self, variable: Variable[Any], default: Any = None) -> Any:
        """Return the value of a variable, or `default` if it is not set or wrong; a wrong one is recorded.

        Args:
            default: `dataclasses.MISSING` for a required variable.
        """
        name, kind = variable.name, variable.kind
        text = self._env.get(name)
        if text is None or not (kind.is_raw or text.strip()):
            if default is dataclasses.MISSING:
                self.add_problems([f"{name} is not set. {variable.if_missing}".rstrip()])
                default = None
            self._settings[name] = MaskedSetting(format_value(variable, default), True)
            return default
        shown = MASK if kind.is_secret else mask_url(text)[:_MAX_SHOWN_LENGTH]
        self._settings[name] = MaskedSetting(shown, False)
        try:
            return kind.parse(text if kind.is_raw else text.strip())
        except ValueError as error:
            self.add_problems([f"{name} {error}"])
            return None if default is dataclasses.MISSING else default

    def read_fields(self, settings_class: type, **defaults: Any) -> dict[str, Any]:
        """Return the values of all fields that have exactly one variable.

        Args:
            defaults: defaults in place of those of the fields; a callable computes one from the values read so far.
        """
        values: dict[str, Any] = {}
        fields = {field.name: field for field in dataclasses.fields(settings_class)}
        for name, variables in variables_of(settings_class).items():
            if len(variables) != 1:
                continue
            default = defaults.get(name, default_of(fields[name]))
            values[name] = self.read(variables[0], default(values) if callable(default) else default)
        return values

    def masked_settings(self) -> dict[str, MaskedSetting]:
        """Return all variables read so far, masked, sorted by name."""
        return dict(sorted(self._settings.items()))


def reading(env: "Mapping[str, str] | Environment | None") -> Environment:
    """Return the environment to read from: `env` itself, its mapping, or that of the process."""
    return env if isinstance(env, Environment) else Environment(os.environ if env is None else env)


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Return the default of a field; `dataclasses.MISSING` if it is required."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def format_value(variable: Variable[Any], value: Any) -> str:
    """Return a value as text that is safe to show; empty for none."""
    if value is None or value is dataclasses.MISSING:
        return ""
    return MASK if variable.kind.is_secret else mask_url(variable.kind.format(value))[:_MAX_SHOWN_LENGTH]


def whole_number(minimum: int, maximum: int) -> Kind[int]:
    """A whole number in decimal digits."""
    return Kind("whole number", f"{minimum} to {maximum}", lambda text: _parse_int(text, minimum, maximum))


def duration(unit: timedelta, minimum: int, maximum: int) -> Kind[timedelta]:
    """A whole number of units of time."""
    return Kind(
        "whole number",
        f"{minimum} to {maximum}",
        lambda text: unit * _parse_int(text, minimum, maximum),
        lambda value: str(value // unit),
    )


def whole_seconds(minimum: int, maximum: int) -> Kind[float]:
    """A whole number of seconds."""
    return Kind(
        "whole number",
        f"{minimum} to {maximum}",
        lambda text: float(_parse_int(text, minimum, maximum)),
        lambda value: f"{value:.0f}",
    )


_TRUE_VALUES, _FALSE_VALUES = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def switch() -> Kind[bool]:
    """A setting that is on or off."""

    def parse(text: str) -> bool:
        if text.lower() not in _TRUE_VALUES + _FALSE_VALUES:
            raise ValueError(f"must be 1 or 0; it is {quote(text)}.")
        return text.lower() in _TRUE_VALUES

    return Kind("switch", "1 or 0 (also true, yes, on; false, no, off)", parse, lambda value: str(int(value)))


def choice(*values: str) -> Kind[str]:
    """One of a few words, in lower or upper case."""

    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"must be {' or '.join(values)}; it is {quote(text)}.")
        return text.lower()

    return Kind("word", " or ".join(values), parse)


def text(allowed: str = "any", *, is_raw: bool = False) -> Kind[str]:
    """A text without a form."""
    return Kind("text", allowed, str, is_raw=is_raw)


def secret(min_length: int = 1) -> Kind[Secret]:
    """A text that is never shown."""

    def parse(text: str) -> Secret:
        if len(text) < min_length:
            raise ValueError(
                f"must have at least {min_length} characters, and has {len(text)}. "
                "Use a random value, or leave the variable unset."
            )
        return Secret(text)

    return Kind("text", f"at least {min_length} characters" if min_length > 1 else "any", parse, is_secret=True)


def name_list(allowed: str, check: Callable[[str], None] = lambda _: None) -> Kind[tuple[str, ...]]:
    """Names in lower case, separated by commas.

    Args:
        check: raises ValueError for a name of the wrong form.
    """

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in (piece.strip().lower() for piece in text.split(",")) if name)
        for name in names:
            check(name)
        return names

    return Kind("list", allowed, parse, ", ".join)


def base_url() -> Kind[str]:
    """An address to which paths are added; slashes at its end are dropped."""

    def parse(text: str) -> str:
        try:
            urlsplit(text)
        except ValueError:
            raise ValueError(f"must be a web address such as https://example.org; it is {quote(text)}.") from None
        return text.rstrip("/")

    return Kind("URL", "a web address", parse)


def server_url(allowed: str) -> Kind[str]:
    """The address of a server, with its credentials."""
    return Kind("URL", allowed, str)


def require_web_url(url: str) -> None:
    """Refuse what is no web address.

    Raises:
        ValueError: the scheme is another, or the host is missing.
    """
    try:
        parts = urlsplit(url)
        is_web_url = parts.scheme in ("https", "http") and bool(parts.netloc)
    except ValueError:
        is_web_url = False
    if not is_web_url:
        raise ValueError(f"must be a web address such as https://example.org; it is {quote(url)}.")


def web_url() -> Kind[str]:
    """The address of a web page."""

    def parse(text: str) -> str:
        require_web_url(text)
        return text

    return Kind("URL", "http:// or https://", parse)


def quote(text: str) -> str:
    """Return a given value for an error message: shortened, with credentials of a URL masked."""
    return repr(mask_url(text)[:_MAX_QUOTED_LENGTH])


def _parse_int(text: str, minimum: int, maximum: int) -> int:
    # The length is checked first, since int() refuses very long texts.
    if not text.isascii() or not text.isdecimal() or len(text) > 400 or not minimum <= int(text) <= maximum:
        raise ValueError(f"must be a whole number from {minimum} to {maximum}; it is {quote(text)}.")
    return int(text)
