"""The settings that are in force in each process, as it reported them: secrets masked."""

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
    """Processes of a kind that have the same settings; `mine`: the one that answers is among them."""

    kind: str
    processes: list[Process]
    settings: dict[str, MaskedSetting]
    includes_this_process: bool


@blueprint.get("/")
def index() -> str:
    """Name, value and where it comes from, for each kind of process; the one that answers first."""
    with connection() as conn:
        found = process_registry.list_processes(conn)
    return render_template("operator/settings.html", groups=_group_processes(found))


def _group_processes(running: list[Process]) -> list[ProcessGroup]:
    alike: list[list[Process]] = []
    for one in running:
        same = next((some for some in alike if (some[0].kind, some[0].settings) == (one.kind, one.settings)), None)
        if same is None:
            alike.append([one])
        else:
            same.append(one)
    me = (socket.gethostname(), os.getpid())
    groups = [
        ProcessGroup(some[0].kind, some, some[0].settings, any((one.host, one.pid) == me for one in some))
        for some in alike
    ]
    return sorted(groups, key=lambda group: (not group.includes_this_process, group.kind))
