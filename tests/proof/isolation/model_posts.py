"""Expected results of the tools of posts, presence, the ledger, the digest and long polls."""

from collections.abc import Sequence
from typing import Any

from bus.rules.surfaces import overlaps
from tests.proof.isolation import model_tasks
from tests.proof.isolation.model import (
    MAX_CURSOR_LAG,
    Caller,
    Delivery,
    Participation,
    Post,
    Project,
    Refused,
    contains_words,
)

Content = dict[str, Any]


def post(
    project: Project,
    caller: Caller,
    body: str,
    to_lane: str | None = None,
    to_actor: str | None = None,
    ref: str | None = None,
    tag: str | None = None,
    reply_to: int | None = None,
    idempotency_key: str | None = None,
) -> Content:
    if to_lane is None and to_actor is None:
        project.authenticate(caller)
        raise Refused("invalid_argument")
    sender = project.authenticate(caller, is_write=True)
    arguments = ("post", body, to_lane, to_actor, ref, tag, reply_to)
    stored = project.find_result(sender, idempotency_key, arguments)
    if stored is not None:
        return stored
    recipient = None if to_actor is None else project.find_present(to_actor, sender.owner)
    if reply_to is not None and reply_to not in project.posts:
        raise Refused("not_found")
    project.refuse_viewer(recipient)
    recipients = [] if to_lane is None else project.lane_members(to_lane, sender)
    if recipient is not None and recipient not in recipients:
        recipients.append(recipient)
    recipient_name = None if recipient is None else recipient.actor
    post_id = project.record(
        sender,
        "post",
        to_lane=to_lane,
        to_actor=recipient_name,
        subject=None,
        ref=ref,
        tag=tag,
        reply_to=reply_to,
        recipients=len(recipients),
    )
    project.posts[post_id] = Post(
        post_id, sender, sender.actor, body, to_lane, recipient, recipient_name, ref, tag, reply_to
    )
    for member in recipients:
        project.deliveries[member, post_id] = Delivery()
    content = {"post_id": post_id, "recipients": len(recipients)}
    project.store_result(sender, idempotency_key, arguments, content)
    return content


def ack(project: Project, caller: Caller, post_ids: Sequence[int]) -> Content:
    reader = project.authenticate(caller, is_write=True)
    if any(post_id not in project.posts for post_id in post_ids):
        raise Refused("not_found")
    for post_id in sorted(set(post_ids)):
        delivery = project.deliveries.setdefault((reader, post_id), Delivery(is_addressed=False))
        if delivery.is_acked:
            continue
        delivery.is_acked = True
        project.record(reader, "ack", post_id=post_id)
        acked = project.posts[post_id]
        acked.is_acked |= acked.sender is not reader or (acked.to is reader and acked.to_lane is None)
    return {"acked": [{"post_id": post_id} for post_id in dict.fromkeys(post_ids)]}


def read_posts(
    project: Project,
    caller: Caller,
    to_lane: str | None = None,
    to_me: bool = False,
    tag: str | None = None,
    ref: str | None = None,
    unacked_only: bool = False,
    reply_to: int | None = None,
    text: str | None = None,
    post_ids: Sequence[int] | None = None,
    whole: bool = True,
    before: int | None = None,
    limit: int = 50,
) -> Content:
    reader = project.authenticate(caller)
    matches = [
        each
        for each in sorted(project.posts.values(), key=lambda each: -each.id)
        if (to_lane is None or each.to_lane == to_lane)
        and (tag is None or each.tag == tag)
        and (ref is None or each.ref == ref)
        and (reply_to is None or each.reply_to == reply_to)
        and (text is None or contains_words(text, each.ref, each.body))
        and (post_ids is None or each.id in post_ids)
        and (before is None or each.id < before)
        and _is_selected(project, reader, each, to_me, unacked_only)
    ]
    return render_page(project, reader, matches, limit)


def _is_selected(project: Project, reader: Participation, each: Post, to_me: bool, unacked_only: bool) -> bool:
    mine = project.deliveries.get((reader, each.id))
    if to_me:
        return mine is not None and (not mine.is_acked if unacked_only else mine.is_addressed)
    if not unacked_only:
        return True
    own = project.deliveries.get((each.sender, each.id))
    is_without_ack = not each.is_acked and (each.sender is not reader or own is None or not own.is_acked)
    return is_without_ack or (mine is not None and not mine.is_acked)


def render_page(project: Project, reader: Participation, matches: list[Post], limit: int) -> Content:
    """Render a page of posts as its reader sees them."""
    page = matches[:limit]
    return {
        "posts": [_render_post(project, reader, each) for each in page],
        "next_before": page[-1].id if len(matches) > limit else None,
    }


def _render_post(project: Project, reader: Participation, each: Post) -> Content:
    mine = project.deliveries.get((reader, each.id))
    has_acked = mine is not None and mine.is_acked
    is_acked = has_acked if mine is not None and mine.is_addressed else each.is_acked or has_acked
    rendered: Content = {
        "post_id": each.id,
        "from": each.actor,
        "to_lane": each.to_lane,
        "to_actor": each.to_actor,
        "subject": None,
        "body": each.body,
        "ref": each.ref,
        "tag": each.tag,
        "acked": is_acked,
    }
    if each.reply_to is not None:
        rendered["reply_to"] = each.reply_to
    deliveries = {member: delivery for (member, post_id), delivery in project.deliveries.items() if post_id == each.id}
    ackers = sorted(member.actor for member, delivery in deliveries.items() if delivery.is_acked)
    if ackers:
        rendered["acked_by"] = ackers
    if each.sender is reader:
        addressed = [delivery for delivery in deliveries.values() if delivery.is_addressed]
        acked_count = sum(delivery.is_acked for delivery in addressed)
        rendered["deliveries"] = {"queued": len(addressed) - acked_count, "surfaced": 0, "acked": acked_count}
    return rendered


def register(project: Project, caller: Caller, lane: str, status: str = "") -> Content:
    member = project.authenticate(caller, is_write=True)
    old_lane = member.lane
    if member.registered != (lane, status):
        project.record(member, "register", lane=lane, status=status)
        member.registered = (lane, status)
        if old_lane != lane:
            project.leave_lane(member, old_lane)
            project.join_lane(member, lane)
    member.was_seen = True
    return {"actor": member.actor, "lane": lane, "status": status}


def who_is_active(project: Project, caller: Caller, lane: str | None = None, before: str | None = None) -> Content:
    project.authenticate(caller)
    active = sorted(
        (each for each in project.participations if each.was_seen and each.is_present), key=lambda each: each.actor
    )
    return {
        "active": [
            {"actor": each.actor, "lane": each.lane, "status": each.registered[1] if each.registered else ""}
            for each in active
            if (lane is None or each.lane == lane) and (before is None or each.actor > before)
        ],
        "next_before": None,
    }


def query_events(
    project: Project,
    caller: Caller,
    actor: str | None = None,
    type: str | None = None,  # noqa: A002 - the name of the argument
    sequence: str | None = None,
    number: int | None = None,
    ref: str | None = None,
    tag: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> Content:
    reader = project.authenticate(caller)
    writer = None
    if actor is not None:
        writer = project.find(actor, reader.owner)
        if writer is None:
            raise Refused("unknown_recipient")
    matches = [
        (event_id, event)
        for event_id, event in reversed(list(enumerate(project.events, 1)))
        if (before is None or event_id < before)
        and (writer is None or event.participation is writer)
        and (type is None or event.type == type)
        and (sequence is None or (event.type in ("claim", "seed") and event.payload["sequence"] == sequence))
        and (number is None or (event.type == "claim" and event.payload["number"] == number))
        and (ref is None or event.payload.get("ref") == ref)
        and (tag is None or event.payload.get("tag") == tag)
    ]
    page = matches[:limit]
    return {
        "events": [
            _render_event(project, event_id) | {"mine": event.participation is reader} for event_id, event in page
        ],
        "next_before": page[-1][0] if len(matches) > limit else None,
    }


def whats_new(
    project: Project, caller: Caller, advance_cursor: bool = True, limit: int = 100, since: int | None = None
) -> Content:
    reader = project.authenticate(caller)
    cursor = reader.cursor
    if cursor is None:
        cursor = max(0, len(project.events) - MAX_CURSOR_LAG)
        if since is None and advance_cursor:
            reader.cursor = cursor
    start = cursor if since is None else since
    end = max(start, min(start + limit, len(project.events)))
    events = []
    own_count = 0
    for event_id in range(start + 1, end + 1):
        is_mine = project.events[event_id - 1].participation is reader
        own_count += is_mine
        if since is not None:
            events.append(_render_event(project, event_id) | {"mine": is_mine})
        elif not is_mine:
            events.append(_render_event(project, event_id))
    if since is None and advance_cursor:
        cursor = reader.cursor = max(cursor, end)
    content: Content = {
        "since_event_id": start,
        "events": events,
        "unacked_posts": project.unread(reader),
        "active_leases": len(project.leases),
        "latest_claims": {name: each.claimed[1] for name, each in project.sequences.items() if each.claimed},
        "cursor": cursor,
        "more": len(project.events) > end,
    }
    if since is None and own_count:
        content["left_out"] = {"own": own_count}
    return content


def _render_event(project: Project, event_id: int) -> Content:
    event = project.events[event_id - 1]
    return {"id": event_id, "actor": event.actor, "type": event.type, "payload": event.payload}


def wait_for(
    project: Project, caller: Caller, kind: str = "any", surface: str | None = None, take: bool = False
) -> Content:
    """A wait that is polled once and then ended."""
    me = project.authenticate(caller)
    is_meaningful = (kind != "lease" or surface is not None) and (surface is None or kind in ("lease", "any"))
    if not is_meaningful or (take and kind not in ("task", "any")):
        raise Refused("invalid_argument")
    kinds = {"inbox", "acks", "task"} if kind == "any" else {kind}
    if "inbox" in kinds and (unread := sorted(project.inbox(me), reverse=True)):
        return {"kind": "inbox", **render_page(project, me, [project.posts[post_id] for post_id in unread], 50)}
    # A refusal below undoes the move of the cursor.
    ack_cursor, acked = _find_new_acks(project, me) if "acks" in kinds else (me.ack_cursor, [])
    if acked:
        me.ack_cursor = ack_cursor
        return {"kind": "acks", **render_page(project, me, acked, 100)}
    if "task" in kinds:
        project.authenticate(caller, is_write=True)
        me.ack_cursor = ack_cursor
        taken = model_tasks.take_next(project, me) if take else model_tasks.offer_next(project, me)
        if taken is not None:
            return {"kind": "task", "task": taken}
    me.ack_cursor = ack_cursor
    if surface is not None and _takes_turn(project, me, surface):
        project.notified_waits.append((me, surface))
        return {"kind": "lease", "leases": [], "next_before": None}
    return {"timed_out": True}


def _find_new_acks(project: Project, me: Participation) -> tuple[int, list[Post]]:
    cursor = me.ack_cursor
    if cursor is None:
        cursor = max(0, len(project.events) - MAX_CURSOR_LAG)
    acks = [(event_id, event) for event_id, event in enumerate(project.events, 1) if event.type == "ack"]
    new = [(event_id, event) for event_id, event in acks if event_id > cursor]
    acked = {
        event.payload["post_id"]
        for _, event in new
        if event.participation is not me and project.posts[event.payload["post_id"]].sender is me
    }
    posts = [project.posts[post_id] for post_id in sorted(acked, reverse=True)]
    return max([cursor, *(event_id for event_id, _ in new)]), posts


def _takes_turn(project: Project, me: Participation, surface: str) -> bool:
    is_leased = any(lease.holder is not me and overlaps(surface, lease.surface) for lease in project.leases.values())
    is_claimed = any(other is not me and overlaps(surface, waited) for other, waited in project.notified_waits)
    return not is_leased and not is_claimed
