"""The effective settings of each process, as it reported them, with masked secrets."""

import os
import socket
from dataclasses import dataclass

from flask import render_template

from bus.config.redaction import MaskedSetting
from bus.operations import process_registry
from bus.operations.process_registry import Process
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.context import connection

blueprint = OperatorBlueprint("operator_settings", path="settings", tab=NavItem("Settings", 70))


@dataclass(frozen=True)
class ProcessGroup:
    """Processes of one kind with the same settings.

    Attributes:
        includes_this_process: whether the process that renders the page is among them.
    """

    kind: str
    processes: list[Process]
    settings: dict[str, MaskedSetting]
    includes_this_process: bool


@blueprint.get("/")
def index() -> str:
    """Show name, value and source of each setting, by kind of process; this process first."""
    with connection() as conn:
        processes = process_registry.list_processes(conn)
    return render_template("operator/settings.html", groups=_group_processes(processes))


def _group_processes(running: list[Process]) -> list[ProcessGroup]:
    grouped: list[list[Process]] = []
    for process in running:
        key = (process.kind, process.settings)
        group = next((group for group in grouped if (group[0].kind, group[0].settings) == key), None)
        if group is None:
            grouped.append([process])
        else:
            group.append(process)
    this_process = (socket.gethostname(), os.getpid())
    groups = [
        ProcessGroup(
            processes[0].kind,
            processes,
            processes[0].settings,
            any((process.host, process.pid) == this_process for process in processes),
        )
        for processes in grouped
    ]
    return sorted(groups, key=lambda group: (not group.includes_this_process, group.kind))
