"""The addresses of a running `up`, stored in the data folder for other commands."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bus.config.database_url import normalise_database_url
from cli import data_dir
from cli.exit_codes import CliError, ExitCode
from cli.files import write_private
from cli.settings import MIGRATION_DATABASE_URL, read_variable

if TYPE_CHECKING:
    from bus.config.settings import Settings

_RUNTIME_FILE = "runtime.json"
# The owner of a fresh bus.
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
    # As the owner of the schema; empty if that is the role of database_url.
    migration_database_url: str = ""

    def addresses(self) -> dict[str, str | None]:
        """Return the addresses as `up --json` prints them."""
        return {
            "gateway_url": self.mcp_url,
            "web_url": self.public_url if self.web else None,
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "data": self.data,
        }


@dataclass(frozen=True)
class NewAgent:
    """An agent that this start created, with its token, which is shown only once."""

    project: str
    name: str
    token: str = field(repr=False)


def save(runtime: RuntimeInfo) -> None:
    """Store the addresses for other commands, readable by this user only."""
    write_private(Path(runtime.data) / _RUNTIME_FILE, json.dumps(asdict(runtime), indent=1))


def delete(data: Path) -> None:
    """Delete the stored addresses when the bus stops."""
    (data / _RUNTIME_FILE).unlink(missing_ok=True)


def find_running(data: Path) -> RuntimeInfo | None:
    """Return the bus that runs in this data folder, or None; files of a killed `up` do not count.

    Raises:
        CliError: the data folder belongs to another user.
    """
    try:
        if not data_dir.is_locked(data):
            return None
        return RuntimeInfo(**json.loads((data / _RUNTIME_FILE).read_text(encoding="utf-8")))
    except PermissionError as error:
        raise CliError(f"The bus in {data} belongs to another user; run llm-bus as that user.") from error
    except (OSError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class DatabaseUrls:
    """The URLs of one database.

    Attributes:
        application: of the role of the processes.
        owner: of the owner of the schema; the same where there is only one role.
    """

    application: str
    owner: str


def find_database_urls(data: Path | None = None) -> DatabaseUrls:
    """Return the URLs of the database of DATABASE_URL, or else of the bus that runs in the data folder.

    Raises:
        CliError: DATABASE_URL is not set and no bus runs here.
        SettingError: a variable has the wrong form.
    """
    application = settings_for_cli(data).database_url
    if os.environ.get("DATABASE_URL", "").strip():
        owner = read_migration_database_url()
    else:
        running = find_running(data_dir.locate(data))
        owner = running.migration_database_url if running else ""
    return DatabaseUrls(application, owner or application)


def read_migration_database_url() -> str:
    """Return MIGRATION_DATABASE_URL; empty if it is not set.

    Raises:
        SettingError: it has another form.
    """
    url = read_variable(MIGRATION_DATABASE_URL)
    return normalise_database_url(url, MIGRATION_DATABASE_URL.name) if url else ""


def settings_for_cli(data: Path | None = None) -> "Settings":
    """Return the settings of the bus of DATABASE_URL, or else of the bus that runs in the data folder.

    Raises:
        CliError: DATABASE_URL is not set and no bus runs here.
        SettingError: a variable has the wrong form.
    """
    # Imported late, since pydantic takes longer to import than a command that only asks whether a bus runs.
    from bus.config.settings import Settings

    if os.environ.get("DATABASE_URL", "").strip():
        return Settings.from_env()
    folder = data_dir.locate(data)
    running = find_running(folder)
    if running is None:
        raise CliError(
            f"No bus is running here ({folder}). Start one with `make run` (`llm-bus up`), "
            "or set DATABASE_URL to the database of a running one.",
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
