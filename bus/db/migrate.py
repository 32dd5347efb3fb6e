"""Migrations: bring a database to the schema that this version of the code expects."""

from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from bus.db import application_role


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for a database, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(_migrations_dir()))
    # Alembic interpolates its options, so a per cent sign of a password is doubled.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(url: str, revision: str = "head", *, application_url: str | None = None) -> None:
    """Bring the database to `revision`, install the SQL functions, and grant the role of the processes its privileges.

    Safe to run concurrently: the second run waits for an advisory lock and then finds nothing left to do.

    Args:
        url: of the owner of the schema.
        revision: the schema version.
        application_url: with which the processes connect; its role is created if there is none. None, or a URL of the
            owner: the processes connect as the owner, and no role is touched.

    Raises:
        RoleNotCreatedError: the role does not exist, and the owner of the schema may not create it.
        NewerSchemaError: the database has a newer schema.
    """
    config = alembic_config(url)
    config.attributes["application_role"] = application_url and application_role.find_application_role(
        application_url, url
    )
    command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision`; `base` removes the schema."""
    command.downgrade(alembic_config(url), revision)


def head_revision() -> str:
    """Return the newest revision that this code has."""
    revision = ScriptDirectory(str(_migrations_dir())).get_current_head()
    assert revision is not None
    return revision


def _migrations_dir() -> Path:
    return Path(str(resources.files("migrations")))
