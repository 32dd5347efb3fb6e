"""The settings that the processes would read here, with their origin."""

import os
from dataclasses import dataclass
from pathlib import Path

from bus.config.redaction import MASK, mask_url
from bus.config.settings import Settings
from bus.config.variables import reading
from bus.operations.telemetry import TelemetrySettings
from cli import data_dir
from cli.runtime import find_running
from cli.settings import CLI_VARIABLES, read_variable
from webapp.settings import WebOptions
from workers.app import list_problems
from workers.settings import WorkerSettings


@dataclass(frozen=True)
class SettingInForce:
    """A setting; `value` is masked, `origin` is environment, running bus or default."""

    name: str
    value: str
    origin: str


def list_settings(data: Path | None = None) -> list[SettingInForce]:
    """Return the settings of all processes and of the command line, by name.

    Raises:
        SettingError: a setting is wrong.
    """
    from_running = find_running_variables(data)
    with reading({**os.environ, **from_running}) as env:
        settings = Settings.from_env(env)
        WebOptions.from_env(env)
        worker_settings = WorkerSettings.from_env(env, bus=settings)
        # Without Redis the jobs run from a scheduler.
        if settings.redis_url is not None:
            env.add_problems(list_problems(worker_settings))
        env.read(TelemetrySettings)
    in_force = [
        SettingInForce(
            name,
            setting.value,
            "default" if setting.is_default else "running bus" if name in from_running else "environment",
        )
        for name, setting in env.masked_settings().items()
    ]
    in_force += [
        SettingInForce(variable.name, _mask(variable.meaning, text), "environment" if text else "default")
        for variable in CLI_VARIABLES
        for text in (read_variable(variable),)
    ]
    return sorted(in_force, key=lambda setting: setting.name)


def find_running_variables(data: Path | None = None) -> dict[str, str]:
    """Return the addresses of the bus that runs here, as variables, without those that the environment sets."""
    running = None if os.environ.get("DATABASE_URL", "").strip() else find_running(data_dir.locate(data))
    if running is None:
        return {}
    variables = {
        "DATABASE_URL": running.database_url,
        "REDIS_URL": running.redis_url,
        "PUBLIC_URL": running.public_url,
        "MCP_URL": running.mcp_url,
    }
    return {name: text for name, text in variables.items() if not os.environ.get(name, "").strip()}


def _mask(meaning: str, text: str) -> str:
    if "://" in text:
        return mask_url(text)
    return MASK if text and "**Secret**" in meaning else text
