"""`llm-bus settings`: the settings in force, with their origin."""

from pathlib import Path

import click

from cli.options import data_option, emit, format_table, json_option


@click.command("settings", short_help="Show the settings in force, and check them.")
@click.option("--changed", is_flag=True, help="Leave out those with their default.")
@data_option
@json_option
def command(changed: bool, data: Path | None, as_json: bool) -> None:
    """Show every setting with its value, and whether the environment, the running bus or the default gives it.

    Secrets are masked. Exit code 1: a setting is wrong, and no process would start.
    """
    from cli.settings_in_force import list_settings

    settings = [setting for setting in list_settings(data) if not changed or setting.origin != "default"]
    emit(
        {"settings": [{"name": each.name, "value": each.value, "origin": each.origin} for each in settings]},
        format_table(("NAME", "VALUE", "ORIGIN"), [(each.name, each.value, each.origin) for each in settings]),
        as_json=as_json,
    )
