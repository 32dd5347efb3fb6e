"""The settings that are in force in each process, as it reported them: secrets masked."""

import os
import socket
from dataclasses import dataclass

from flask import render_template

from bus.config.redaction import Setting
from bus.operations import process_registry
from bus.operations.process_registry import Process
from webapp.blueprints import Entry, OperatorPages
from webapp.context import reading

pages = OperatorPages("operator_settings", path="settings", tab=Entry("Settings", 70))


@dataclass(frozen=True)
class Group:
    """Processes of a kind that have the same settings; `mine`: the one that answers is among them."""

    kind: str
    members: list[Process]
    settings: dict[str, Setting]
    mine: bool


@pages.get("/")
def index() -> str:
    """Name, value and where it comes from, for each kind of process; the one that answers first."""
    with reading() as conn:
        found = process_registry.list_(conn)
    return render_template("operator/settings.html", groups=_groups(found))


def _groups(found: list[Process]) -> list[Group]:
    alike: list[list[Process]] = []
    for one in found:
        same = next((some for some in alike if (some[0].kind, some[0].settings) == (one.kind, one.settings)), None)
        if same is None:
            alike.append([one])
        else:
            same.append(one)
    me = (socket.gethostname(), os.getpid())
    groups = [
        Group(some[0].kind, some, some[0].settings, any((one.host, one.pid) == me for one in some)) for some in alike
    ]
    return sorted(groups, key=lambda group: (not group.mine, group.kind))
