"""Names in a project: from `label`, `handle/label` or the owner's `handle` to a participation."""

from difflib import get_close_matches

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation


def with_suggestions(error: BusError) -> BusError:
    """Turn what SQL knows about an unknown name into the sentence and the facts that the caller gets."""
    if error.code != "unknown_recipient":
        return error
    return _build_unknown_recipient_error(
        str(error.data.get("wanted", "")), [str(name) for name in error.data.get("names", ())]
    )


def unknown_recipient_error(conn: Connection, project_id: int, wanted: str) -> BusError:
    """The error for a name that nobody in the project bears, with up to five near names."""
    rows = conn.fetch_all(
        "SELECT bus_short_name(o.handle, pt.label) FROM participation p"
        " JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " WHERE p.project_id = %s AND p.removed_at IS NULL AND pt.removed_at IS NULL ORDER BY p.id LIMIT 200",
        (project_id,),
    )
    return _build_unknown_recipient_error(wanted, [label for (label,) in rows])


def get_participation_id(conn: Connection, ctx: Ctx, name: str, argument: str) -> int:
    """The participation that a filter names, former names and removed participants included.

    Raises:
        BusError: `unknown_recipient`, with up to five near names.
    """
    handle, label = validation.qualified_name(name, argument)
    # Entering first: who may not call learns no names.
    (participation_id,) = conn.fetch_one(
        "SELECT bus_find_participation(c.project_id, %s, %s) FROM bus_authenticate(%s, %s, false) c",
        (handle, validation.label_key(label), ctx.participation_id, ctx.token_id),
    )
    if participation_id is None:
        raise unknown_recipient_error(conn, ctx.project_id, name)
    return int(participation_id)


def _build_unknown_recipient_error(wanted: str, labels: list[str]) -> BusError:
    by_key = {validation.label_key(label): label for label in labels}
    key = validation.label_key(wanted.rpartition("/")[2])
    matches = get_close_matches(key, by_key, n=5, cutoff=0.5)
    near = [by_key[match] for match in matches]
    message = f'No participant of this project is called "{wanted}".'
    if near:
        return BusError("unknown_recipient", f"{message} Did you mean {', '.join(near)}?", near=near)
    return BusError("unknown_recipient", message, hint="list_participants", near=near)
