"""Bringing a database to the schema that this version of the code expects."""

from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def alembic_config(url: str) -> Config:
    """Alembic's configuration for a database, without an ini file."""
    configured = Config()
    configured.set_main_option("script_location", str(_migrations_dir()))
    # Alembic's options are interpolated: a literal per cent sign in a password is doubled.
    configured.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return configured


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database to `revision` and install the functions of bus/sql.

    Safe to run twice at once: the second waits on an advisory lock and finds nothing left to do.
    """
    command.upgrade(alembic_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision` (`base` for none)."""
    command.downgrade(alembic_config(url), revision)


def head_revision() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory(str(_migrations_dir())).get_current_head()
    assert revision is not None
    return revision


def _migrations_dir() -> Path:
    return Path(str(resources.files("migrations")))
