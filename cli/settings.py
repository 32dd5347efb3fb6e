"""Variables of the command line, in addition to the settings that it shares with the processes."""

import os
from typing import Any

from bus.config.variables import Variable, secret, text

DATA_FOLDER = Variable(
    "LLM_BUS_DATA",
    text("a folder"),
    "data folder of `llm-bus up`",
    default_text="`.data` in a checkout, else a folder of the user",
)
POSTGRES_PROGRAMS = Variable(
    "LLM_BUS_PG_BIN",
    text("a folder"),
    "programs of the PostgreSQL that `llm-bus up` runs",
    default_text="those installed with it",
)
GATEWAY_URL = Variable("LLM_BUS_URL", text("a web address"), "gateway that commands of agents call")
AGENT_TOKEN = Variable("LLM_BUS_TOKEN", secret(), "token of the agent that they act as")
CLI_VARIABLES = (DATA_FOLDER, POSTGRES_PROGRAMS, GATEWAY_URL, AGENT_TOKEN)


def read_variable(variable: Variable[Any]) -> str:
    """Return the value of a variable; empty if it is not set."""
    return os.environ.get(variable.name, "").strip()
