"""Base of the settings classes, and how pydantic-settings reads them from environment variables.

A field names its variable, its range and its meaning:

    port: Annotated[int, Field(validation_alias="PORT", ge=0, le=65535, description="where it listens")] = 8788

`reading` collects every wrong variable of all classes into one error that shows no secret, and records the values in
force, masked. docs/reference/settings.md is generated from the same declarations. In `json_schema_extra`, `processes`
names the processes that read a variable, and `default_text` describes a default that is computed.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from bus.config import misspelt_names
from bus.config.errors import SettingError
from bus.config.redaction import MASK, MaskedSetting, mask_url, quote

S = TypeVar("S", bound="EnvironmentSettings")
_MAX_SHOWN_LENGTH = 500


class EnvironmentSettings(BaseSettings):
    """Frozen settings whose repr shows no secret; the constructor takes values by field and reads no environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        enable_decoding=False,
        hide_input_in_errors=True,
        field_title_generator=lambda *_: "",
    )

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Use the arguments alone; `Environment.read` passes the variables."""
        return (init_settings,)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, value if isinstance(value, EnvironmentSettings) else format_value(value)


class Environment:
    """Reads settings classes from variables, and records the values in force and the problems; see `reading`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._settings: dict[str, MaskedSetting] = {}
        self._names: set[str] = set()
        self.problems: list[str] = []

    def add_problems(self, problems: Iterable[str]) -> None:
        """Add problems, such as those that concern several variables."""
        self.problems += (problem for problem in problems if problem not in self.problems)

    def is_given(self, name: str) -> bool:
        """Return whether a variable is set and not blank."""
        return bool(self._env.get(name, "").strip())

    def read(self, settings_class: type[S], *, keep_empty: str = "", **values: Any) -> S:
        """Return the settings of a class; problems are recorded, and defaults stand in for wrong values.

        Args:
            keep_empty: a variable whose empty text is a value.
            values: values for what the environment does not set, by variable or by field.
        """
        self._names |= variable_schemas(settings_class).keys()
        source = EnvSettingsSource(settings_class)
        source.case_sensitive = True
        # A field could also be set by its own name; only names in capitals are variables.
        source.env_vars = {
            name: text.strip()
            for name, text in self._env.items()
            if name.isupper() and (text.strip() or (name == keep_empty and not text))
        }
        given = source()
        values |= given
        try:
            settings = settings_class(**values)
        except ValidationError as error:
            schemas = variable_schemas(settings_class)
            # A default that is computed from a wrong value is no problem of its own.
            details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
            wrong = {str(detail["loc"][0]): detail for detail in details}
            self.add_problems(_explain(name, schemas[name], detail, values.get(name)) for name, detail in wrong.items())
            examples = {name: schemas[name]["examples"][0] for name in wrong if "examples" in schemas[name]}
            return settings_class(**{name: values[name] for name in values.keys() - wrong.keys()}, **examples)
        for name, field in settings_class.model_fields.items():
            if isinstance(variable := field.validation_alias, str):
                value = getattr(settings, name)
                shown = value if isinstance(value, SecretStr) else given.get(variable, value)
                self._settings[variable] = MaskedSetting(format_value(shown), variable not in given)
        return settings

    def find_misspelt_names(self) -> list[str]:
        """Return a problem for each variable that is not a setting and looks like one of those read so far."""
        given = [name for name in self._env if self.is_given(name)]
        return list(misspelt_names.find_problems(given, self._names))

    def masked_settings(self) -> dict[str, MaskedSetting]:
        """Return all variables read so far, masked, sorted by name."""
        return dict(sorted(self._settings.items()))


@contextmanager
def reading(env: Mapping[str, str] | Environment | None) -> Iterator[Environment]:
    """Read from `env`; the outermost block raises one error for every wrong variable of all classes.

    Args:
        env: variables, None for those of the process, or the environment of an enclosing block.

    Raises:
        SettingError: settings are missing or malformed.
    """
    if isinstance(env, Environment):
        yield env
        return
    reader = Environment(os.environ if env is None else env)
    try:
        yield reader
    except SettingError as error:
        reader.add_problems(error.problems)
    reader.add_problems(reader.find_misspelt_names())
    if reader.problems:
        raise SettingError(*reader.problems)


@functools.cache
def variable_schemas(settings_class: type[EnvironmentSettings]) -> Mapping[str, Mapping[str, Any]]:
    """Return the JSON schema of each variable of a settings class, for an optional one that of its value."""
    properties = settings_class.model_json_schema()["properties"]
    return {name: schema | schema.get("anyOf", [{}])[0] for name, schema in properties.items() if name.isupper()}


def _explain(name: str, schema: Mapping[str, Any], error: Mapping[str, Any], value: Any) -> str:
    """Return what is wrong with a variable and what to write; pydantic's own messages quote no allowed range."""
    if error["type"] == "value_error":
        return f"{name} {error['ctx']['error']}"
    if error["type"] == "missing":
        return f"{name} is not set. Set it to a value such as {schema['examples'][0]}."
    if schema.get("format") == "password":
        return (
            f"{name} must have at least {schema['minLength']} characters, and has {len(value)}. "
            "Use a random value, or leave the variable unset."
        )
    match schema:
        case {"type": "integer", "minimum": minimum, "maximum": maximum}:
            expected = f"a whole number from {minimum} to {maximum}"
        case {"type": "boolean"}:
            expected = "1 or 0"
        case _:
            expected = " or ".join(schema["enum"])
    return f"{name} must be {expected}; it is {quote(str(value))}."


def format_value(value: Any) -> str:
    """Return a value as text that is safe to show, as the variable would hold it; empty for none."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK
        case bool():
            return str(int(value))
        case tuple() | list():
            return ", ".join(map(mask_url, value))[:_MAX_SHOWN_LENGTH]
        case Mapping():
            return ",".join(f"{name}={number:g}" for name, number in value.items())
    return mask_url(str(value))[:_MAX_SHOWN_LENGTH]
