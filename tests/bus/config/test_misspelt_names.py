"""A misspelt setting stops the start; variables of other programs do not."""

import itertools
import re
from pathlib import Path

import pytest

from bus.config import misspelt_names
from bus.config.errors import SettingError
from bus.config.misspelt_names import KNOWN_NAMES, is_one_error_away
from bus.config.settings import Settings
from bus.config.variables import variable_schemas
from bus.operations.telemetry import TelemetrySettings
from cli.settings import CLI_VARIABLES
from webapp.settings import WebOptions
from workers.settings import WorkerSettings

_URL = "postgresql://bus@localhost/bus"
_ALL_NAMES = {
    name
    for settings_class in (Settings, WebOptions, WorkerSettings, TelemetrySettings)
    for name in variable_schemas(settings_class)
} | {variable.name for variable in CLI_VARIABLES}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PUBLIC_ULR", "PUBLIC_URL"),
        ("REDIS_URI", "REDIS_URL"),
        ("ALLOWED_HOST", "ALLOWED_HOSTS"),
        ("MCPP_URL", "MCP_URL"),
    ],
)
def test_a_name_with_one_error_stops_the_start_in_one_line(name: str, meant: str) -> None:
    with pytest.raises(SettingError) as error:
        Settings.from_env({"DATABASE_URL": _URL, name: "x"})
    assert str(error.value) == f"{name} is not a setting. Did you mean {meant}? Rename it, or unset it."


def test_a_misspelt_required_setting_is_named_beside_its_absence() -> None:
    with pytest.raises(SettingError) as error:
        Settings.from_env({"DATABASE_URI": _URL})
    assert [problem.partition(" ")[0] for problem in error.value.problems] == ["DATABASE_URL", "DATABASE_URI"]


def test_an_unknown_name_with_our_prefix_stops_the_start() -> None:
    with pytest.raises(SettingError, match="LLM_BUS_LOG_LEVEL is not a setting"):
        Settings.from_env({"DATABASE_URL": _URL, "LLM_BUS_LOG_LEVEL": "debug"})


@pytest.mark.parametrize(
    "name",
    [
        "LLM_BUS_TOKEN", "LLM_BUS_WEB_SERVICE_HOST", "LLM_BUS_WEB_PORT", "LLM_BUS_WEB_PORT_8787_TCP_ADDR",
        "LLM_BUS_WEB_SERVICE_PORT_HTTP", "REDIS_PORT", "HOSTS", "PORTS", "SMTP_URL", "SECRET_KEY", "redis_uri",
    ],
)  # fmt: skip
def test_other_programs_and_processes_are_left_alone(name: str) -> None:
    Settings.from_env({"DATABASE_URL": _URL, name: "x"})


def test_a_similar_name_beside_the_setting_belongs_to_another_program() -> None:
    Settings.from_env({"DATABASE_URL": _URL, "DATABASE_URI": "x", "PUBLIC_ULR": " "})


def test_no_two_settings_are_one_error_apart() -> None:
    assert [pair for pair in itertools.combinations(sorted(_ALL_NAMES), 2) if is_one_error_away(*pair)] == []


def test_every_variable_with_our_prefix_is_known() -> None:
    root = Path(misspelt_names.__file__).parents[2]
    sources = (
        path.read_text(encoding="utf-8")
        for package in ("bus", "cli", "kit", "mcp_gateway", "webapp", "workers", "tests")
        for path in (root / package).rglob("*.py")
        if path.name != Path(__file__).name
    )
    used = {name for source in sources for name in re.findall(r"\bLLM_BUS_[A-Z_]+[A-Z]\b", source)}
    assert used == KNOWN_NAMES


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("ab", "ab", False), ("ab", "ba", True), ("abc", "ab", True), ("ab", "xab", True), ("ab", "ax", True),
        ("abcd", "badc", False), ("ab", "cd", False), ("abc", "cba", False), ("", "a", True), ("axb", "ab", True),
    ],
)  # fmt: skip
def test_one_error_is_a_change_an_insertion_an_omission_or_an_exchange(text: str, other: str, expected: bool) -> None:
    assert is_one_error_away(text, other) is expected
    assert is_one_error_away(other, text) is expected
