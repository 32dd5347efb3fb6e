"""Variables of the command line, in addition to the settings that it shares with the processes.

They are plain texts, and most commands read one, so they are no settings class: importing pydantic takes longer than
such a command.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class CliVariable:
    """A variable that holds a text of any form."""

    name: str
    form: str
    meaning: str
    default_text: str = "none"


DATA_FOLDER = CliVariable(
    "LLM_BUS_DATA",
    "text: a folder",
    "data folder of `llm-bus up`",
    "`.data` in a checkout, else a folder of the user",
)
POSTGRES_PROGRAMS = CliVariable(
    "LLM_BUS_PG_BIN",
    "text: a folder",
    "programs of PostgreSQL, for `llm-bus up` and `llm-bus backup`",
    "those installed with it",
)
MIGRATION_DATABASE_URL = CliVariable(
    "MIGRATION_DATABASE_URL",
    "URL: postgresql:// or postgres://",
    "the same database as the owner of its schema, for `migrate`, `up`, `backup` and `restore`; the role of"
    " `DATABASE_URL` then only reads and writes rows. **Secret**",
    "`DATABASE_URL`",
)
GATEWAY_URL = CliVariable(
    "LLM_BUS_URL", "text: a web address", "gateway that commands of agents call", "the bus that runs on this machine"
)
AGENT_TOKEN = CliVariable("LLM_BUS_TOKEN", "text", "token of the agent that they act as. **Secret**")
ORIGINAL_DATABASE_URL = CliVariable(
    "ORIGINAL_DATABASE_URL",
    "URL: postgresql:// or postgres://",
    "the database of the original that `llm-bus import original` reads; every user of a machine can read arguments."
    " **Secret**",
    "the argument of the command",
)
CLI_VARIABLES = (
    MIGRATION_DATABASE_URL,
    ORIGINAL_DATABASE_URL,
    DATA_FOLDER,
    POSTGRES_PROGRAMS,
    GATEWAY_URL,
    AGENT_TOKEN,
)


def read_variable(variable: CliVariable) -> str:
    """Return the value of a variable; empty if it is not set."""
    return os.environ.get(variable.name, "").strip()
