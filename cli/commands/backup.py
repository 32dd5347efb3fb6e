"""`llm-bus backup`: write the whole bus into one file."""

from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("backup", short_help="Write a backup of the bus into a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@data_option
@json_option
def command(file: Path, overwrite: bool, data: Path | None, as_json: bool) -> None:
    """Write a backup of the bus (DATABASE_URL, or else the one that runs here) to FILE, while it works.

    FILE holds everything but the tokens themselves, of which the bus keeps only hashes. Keep it private.
    Restore it with `llm-bus restore`.
    """
    from cli.backup import create_backup
    from cli.runtime import find_database_urls

    size = create_backup(find_database_urls(data).owner, file, overwrite=overwrite)
    emit({"file": str(file), "bytes": size}, f"Wrote {file} ({size / 1e6:.1f} MB).", as_json=as_json)
