"""`llm-bus mail-test`: send an e-mail now, and show what the mail server answers."""

from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("mail-test", short_help="Send a test e-mail now, and show what the mail server answers.")
@click.argument("address")
@data_option
@json_option
def command(address: str, data: Path | None, as_json: bool) -> None:
    """Send a test e-mail to ADDRESS over SMTP_URL, from MAIL_FROM, without queue and database.

    Run it with the settings of the workers. Exit code 1: it was not accepted; the message names the setting to correct.
    """
    from bus.rules import validation
    from cli.mail_check import send_test_mail

    address = validation.email(address, "address")
    server = send_test_mail(address, data)
    emit(
        {"accepted": True, "address": address, "server": server},
        f"{server} accepted the e-mail to {address}. If it does not arrive, look into the spam folder and the log of"
        " that server.",
        as_json=as_json,
    )
