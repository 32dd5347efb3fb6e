"""How a participant is recognised on every page: a colour and initials that follow from its name, and a shape.

Agents are squares, people are circles. The colour is one of eight of static/bus.css, chosen by a checksum of the name,
so it is the same on every page, in every process and after every restart.
"""

import re
import zlib
from dataclasses import dataclass, replace

from flask import g

from bus.tenancy import memberships, owners, participant_queries
from webapp.context import connection

HUE_COUNT = 8
# Words that say what a participant is rather than which one.
_GENERIC_WORDS = frozenset({"agent", "ai", "bot", "the"})


@dataclass(frozen=True, slots=True)
class Identity:
    """The appearance of a participant.

    Attributes:
        initials: one or two characters.
        hue: the number of its colour.
        is_person: whether it is a person rather than an agent.
        handle: the handle of its owner, if that is not the owner of the page, or if several owners act in the project.
        label: its name without the handle; the handle itself for an owner.
    """

    initials: str
    hue: int
    is_person: bool
    handle: str
    label: str


def describe(name: str, is_person: bool | None = None) -> Identity:
    """Return the appearance of a participant.

    Args:
        name: its qualified name, such as `ada/review`, the handle of an owner, or a label of the page's owner.
        is_person: whether it is a person; if left out, looked up among the people of the project of this page.
    """
    handle, slash, label = name.partition("/")
    own = _own_handle()
    if handle != own and own and handle in _former_handles():
        # The name of the time, with the appearance of today.
        look = describe(f"{own}{slash}{label}", is_person)
        return look if label else replace(look, label=handle)
    if not label:
        handle, label = "", handle
    if is_person is None:
        is_person = name == own or name in _people() or (not handle and f"{own}/{name}" in _people())
    is_hidden = handle == own and not _has_several_owners()
    return Identity(initials(label), hue(label), is_person, "" if is_hidden else handle, label)


def initials(label: str) -> str:
    """Two characters of a name: of its first two words, or of its last word and its number."""
    words = [word for word in re.split(r"[^\w]+|_", label.lower()) if word]
    telling = [word for word in words if word not in _GENERIC_WORDS] or words
    if not telling:
        return "?"
    if len(telling) > 1:
        first, second = telling[-2:] if telling[-1].isdigit() else telling[:2]
        return (first[0] + second[0]).upper()
    return telling[0][:2].upper()


def hue(label: str) -> int:
    """The number of the colour of a name."""
    return zlib.crc32(label.lower().encode()) % HUE_COUNT


def set_page_context(
    handle: str,
    people: frozenset[str],
    former_handles: frozenset[str] | None = None,
    *,
    has_several_owners: bool = False,
) -> None:
    """Set the owner and the people of a page that is rendered outside a request, or that is no page of a project."""
    g.bus_handle, g.bus_people, g.bus_has_several_owners = handle, people, has_several_owners
    if former_handles is not None:
        g.bus_former_handles = former_handles


def _own_handle() -> str:
    """The handle that is left out on this page, because it is the same on most names."""
    project = g.get("bus_project")
    handle: str = g.get("bus_handle") or (project.owner if project is not None else "")
    return handle


def _has_several_owners() -> bool:
    """Whether other owners act in the project of this page: a name without a handle would mean another to each."""
    if "bus_has_several_owners" not in g:
        project = g.get("bus_project")
        g.bus_has_several_owners = False
        if project is not None:
            with connection() as conn:
                g.bus_has_several_owners = memberships.has_acting_members(conn, project.id)
    cached: bool = g.bus_has_several_owners
    return cached


def _former_handles() -> frozenset[str]:
    """The handles that the owner of the page had before; looked up for the first name with another handle."""
    if "bus_former_handles" not in g:
        with connection() as conn:
            g.bus_former_handles = owners.list_former_handles_of(conn, _own_handle())
    cached: frozenset[str] = g.bus_former_handles
    return cached


def _people() -> frozenset[str]:
    """The qualified names of the people in the project of this page."""
    if "bus_people" not in g:
        project = g.get("bus_project")
        people: list[str] = []
        if project is not None:
            with connection() as conn:
                people = participant_queries.list_people(conn, project.id)
        g.bus_people = frozenset(people)
    cached: frozenset[str] = g.bus_people
    return cached
