"""The variables of the command line, and what reading them costs."""

import subprocess
import sys

import pytest

from cli.settings import CLI_VARIABLES, DATA_FOLDER, read_variable


def test_a_blank_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_FOLDER.name, " /srv/bus ")
    assert read_variable(DATA_FOLDER) == "/srv/bus"
    monkeypatch.setenv(DATA_FOLDER.name, " ")
    assert read_variable(DATA_FOLDER) == ""
    assert len({variable.name for variable in CLI_VARIABLES}) == len(CLI_VARIABLES)


@pytest.mark.parametrize("module", ["cli.main", "cli.up", "cli.runtime", "cli.doctor", "cli.commands.up"])
def test_a_command_without_settings_of_the_service_does_not_import_pydantic(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'pydantic', 'pydantic_settings'}} & sys.modules.keys()))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert completed.stdout == "[]\n"
