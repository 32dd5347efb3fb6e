"""What a running `up` tells the other commands: where its servers are."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bus.config.settings import Settings
from cli import data_dir
from cli.exit_codes import CliError, ExitCode
from cli.files import write_private

_RUNTIME_FILE = "runtime.json"
# Whom a fresh bus belongs to until somebody signs in and says otherwise.
OWNER_EMAIL = "owner@localhost"


@dataclass(frozen=True)
class RuntimeInfo:
    """The addresses of a bus that runs here. The URLs of the servers hold their passwords."""

    database_url: str
    redis_url: str
    public_url: str
    mcp_url: str
    web: bool
    data: str
    ports: dict[str, int]

    def addresses(self) -> dict[str, str | None]:
        """The addresses as `up --json` prints them."""
        return {
            "gateway_url": self.mcp_url,
            "web_url": self.public_url if self.web else None,
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "data": self.data,
        }


@dataclass(frozen=True)
class NewAgent:
    """An agent that was made just now, with the token that is shown this once."""

    project: str
    name: str
    token: str = field(repr=False)


def save(runtime: RuntimeInfo) -> None:
    """Write it down for the other commands, readable by this user only."""
    write_private(Path(runtime.data) / _RUNTIME_FILE, json.dumps(asdict(runtime), indent=1))


def delete(data: Path) -> None:
    """Nothing runs here any more."""
    (data / _RUNTIME_FILE).unlink(missing_ok=True)


def find_running(data: Path) -> RuntimeInfo | None:
    """The bus that runs in this data folder, or None; what a killed `up` left behind does not count.

    Raises:
        CliError: something runs here, but it is another user's.
    """
    try:
        if not data_dir.is_locked(data):
            return None
        return RuntimeInfo(**json.loads((data / _RUNTIME_FILE).read_text(encoding="utf-8")))
    except PermissionError as error:
        raise CliError(f"The bus in {data} belongs to another user; run llm-bus as that user.") from error
    except (OSError, ValueError, TypeError):
        return None


def settings_for_cli(data: Path | None = None) -> Settings:
    """The settings of the bus that a command is meant for: DATABASE_URL, else the one that runs here.

    Raises:
        CliError: neither is there.
        bus.settings.SettingError: a variable has the wrong form.
    """
    if os.environ.get("DATABASE_URL", "").strip():
        return Settings.from_env()
    place = data_dir.locate(data)
    running = find_running(place)
    if running is None:
        raise CliError(
            f"Nothing is running here ({place}). Start it with `make run` (`llm-bus up`), "
            "or set DATABASE_URL to the address of a running one.",
            ExitCode.UNAVAILABLE,
        )
    return Settings.from_env(
        {
            "REDIS_URL": running.redis_url,
            "PUBLIC_URL": running.public_url,
            "MCP_URL": running.mcp_url,
            **os.environ,
            "DATABASE_URL": running.database_url,
        }
    )
