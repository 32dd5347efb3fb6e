"""What agents do in a project: short scripts that run side by side, each a thread of work."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from cli.demo import texts
from cli.demo.model import Agent, Expected, Label, Result, Step

# Yields steps; each is answered with its number in the plan.
Script: TypeAlias = Generator[Step, int, None]


@dataclass(frozen=True, slots=True)
class _Answerable:
    """A post with a ref that was acked; `said` is what its texts were filled with."""

    post: int
    sender: int
    reader: int
    subject: str
    said: dict[str, str]


class Workplace:
    """A project of the plan: its scripts, and what they know of each other.

    What a script looks at changes while it waits for its turn, so it draws its lots when its turn comes.
    """

    def __init__(self, number: int, team: tuple[int, ...], agents: Sequence[Agent], random: Random) -> None:
        self.team = team
        self.events: Counter[str] = Counter()
        self._number = number
        self._agents = agents
        self._random = random
        self._acked = self._anchored = self._collisions = 0
        # Leases meet only where a collision is meant.
        self._free_areas = [path for _, path in texts.THINGS]
        self._status: dict[int, str] = {}
        self._pull_request = random.randint(40, 400)
        self._last = {name: random.randint(3, 60) for name, _, _ in texts.SEQUENCES}
        self._answerable: list[_Answerable] = []

    def expected(self) -> Expected:
        """What the ledger holds once every script has run."""
        return Expected(dict(self.events), self._acked, self._anchored, self._collisions)

    def arrive(self) -> Script:
        """Everybody catches up and registers; the first says where the repository stands."""
        for agent in self.team:
            yield self._step(agent, "whats_new")
            yield self._register(agent)
        for name, prefix, pad in texts.SEQUENCES:
            yield self._step(
                self.team[0],
                "seed_sequence",
                "seed",
                sequence=name,
                current=self._last[name],
                prefix=prefix,
                pad=pad,
            )

    def hand_over(self, acks: int, anchored: bool) -> Script:
        """One post, with a ref if `anchored`, that none, one or two of the others ack."""
        if anchored and self._answerable and self._random.random() < 0.25:
            answered = self._random.choice(self._answerable)
            sender, reader = answered.reader, answered.sender
            onlooker = self._random.choice([agent for agent in self.team if agent not in (sender, reader)])
            said, body = answered.said, self._random.choice(texts.REPLIES)
            tag, subject = "reply", f"Re: {answered.subject.removeprefix('Re: ')}"
            address: dict[str, Any] = {"to_actor": Label(reader), "reply_to": Result(answered.post, "post_id")}
        else:
            sender, reader, onlooker = self._random.sample(self.team, 3)
            kind, ref = self._artifact()
            tag, subject, body = self._random.choice(texts.ANCHORED[kind] if anchored else texts.LOOSE)
            said, address = {**self._said(), "ref": ref}, self._address(sender, reader)
        subject = subject.format_map(said)
        if anchored:
            address["ref"] = said["ref"]
            self._anchored += 1
        post = yield self._step(sender, "post", "post", subject=subject, body=body.format_map(said), tag=tag, **address)
        if acks:
            yield self._step(reader, "read_posts", to_me=True, unacked_only=True)
            self._acked += 1
        for who in (reader, onlooker)[:acks]:
            yield self._step(who, "ack", "ack", post_id=Result(post, "post_id"))
        if acks and anchored:
            self._answerable.append(_Answerable(post, sender, reader, subject, said))

    def claim(self) -> Script:
        """Take a number for something that is about to be named."""
        name, _, _ = self._random.choice(texts.SEQUENCES)
        note = self._random.choice(texts.CLAIM_NOTES).format_map(self._said())
        yield self._step(self._member(), "claim", "claim", sequence=name, note=note)
        self._last[name] += 1

    def overlap(self) -> Script:
        """Two agents at the same files: the second is told, and both go their way."""
        area = self._take_area()
        first, second = self._random.sample(self.team, 2)
        file = f"{area}/{self._random.choice(texts.FILES)}"
        mine, theirs = self._random.choice([(area, file), (file, area), (file, file), (f"{area}/**", file)])
        yield self._lease(first, mine)
        yield self._lease(second, theirs)
        self._collisions += 1
        yield self._step(second, "release", "release", surface=theirs)
        yield self._step(first, "release", "release", surface=mine)
        self._free_areas.append(area)

    def lone_lease(self) -> Script:
        """Look, lease, edit, release."""
        area = self._take_area()
        agent = self._member()
        surface = f"{area}/{self._random.choice(texts.FILES)}"
        yield self._step(agent, "who_holds", surface=surface)
        yield self._lease(agent, surface)
        yield self._step(agent, "release", "release", surface=surface)
        self._free_areas.append(area)

    def blocked_task(self) -> Script:
        """A task turns out to wait for another, and goes on by itself when that one ships."""
        first, second = self._random.sample(self.team, 2)
        needed = yield self._create_task(second, owner=first)
        waiting = yield self._create_task(first, owner=second)
        yield self._task(second, "task_start", waiting)
        reason = self._random.choice(texts.BLOCK_REASONS)
        yield self._task(second, "task_block", waiting, reason=reason, on=Result(needed, "task_id"))
        yield self._task(first, "task_start", needed)
        yield self._ship(first, needed, "task_resolve")
        yield self._ship(second, waiting)

    def chained_tasks(self) -> Script:
        """A task was known from the start to wait for another."""
        first, second = self._random.sample(self.team, 2)
        needed = yield self._create_task(second, owner=first)
        waiting = yield self._create_task(first, owner=second, blocked_on=[Result(needed, "task_id")])
        yield self._task(first, "task_start", needed)
        yield self._ship(first, needed)
        yield self._step(second, "list_tasks", ready=True, owner=Label(second))
        yield self._task(second, "task_start", waiting)
        yield self._ship(second, waiting)

    def new_status(self) -> Script:
        """Somebody says what it does now."""
        yield self._register(self._member())

    def _step(self, agent: int, tool: str, *events: str, **arguments: Any) -> Step:
        return Step(self._number, agent, tool, arguments, events)

    def _register(self, agent: int) -> Step:
        # Saying the same again would be no event.
        status = self._random.choice([text for text in texts.STATUSES if text != self._status.get(agent)])
        self._status[agent] = status
        return self._step(agent, "register", "register", lane=self._agents[agent].lane, status=status)

    def _address(self, sender: int, reader: int) -> dict[str, Any]:
        lane = self._agents[reader].lane
        if self._agents[sender].lane != lane and self._random.random() < 0.4:
            return {"to_lane": lane}
        return {"to_actor": Label(reader)}

    def _lease(self, agent: int, surface: str) -> Step:
        note = self._random.choice(texts.LEASE_NOTES)
        return self._step(agent, "lease", "lease", surface=surface, ttl_seconds=3600, note=note)

    def _create_task(self, agent: int, owner: int, **more: Any) -> Step:
        title = self._random.choice(texts.TASKS).format_map(self._said())
        lane = self._agents[owner].lane
        priority = self._random.randint(1, 3)
        return self._step(
            agent, "task_create", "task_create", title=title, lane=lane, owner=Label(owner), priority=priority, **more
        )

    def _task(self, agent: int, verb: str, task: int, **more: Any) -> Step:
        return self._step(agent, verb, verb, task_id=Result(task, "task_id"), **more)

    def _ship(self, agent: int, task: int, *freed: str) -> Step:
        ref = self._next_pull_request()
        return self._step(agent, "task_ship", "task_ship", *freed, task_id=Result(task, "task_id"), ref=ref)

    def _member(self) -> int:
        return self._random.choice(self.team)

    def _said(self) -> dict[str, str]:
        thing, path = self._random.choice(texts.THINGS)
        file = f"{path}/{self._random.choice(texts.FILES)}"
        return {"thing": thing, "Thing": thing[0].upper() + thing[1:], "path": file}

    def _artifact(self) -> tuple[str, str]:
        """What a post is anchored to: its kind and its name."""
        lot = self._random.random()
        if lot < 0.6:
            return texts.CODE, self._next_pull_request()
        if lot < 0.8:
            return texts.CODE, f"{self._random.getrandbits(28):07x}"
        name, prefix, pad = self._random.choice(texts.SEQUENCES)
        return name, f"{prefix or f'{name} '}{self._last[name]:0{pad}}"

    def _next_pull_request(self) -> str:
        self._pull_request += self._random.randint(0, 2)
        return f"PR-{self._pull_request}"

    def _take_area(self) -> str:
        # There are more areas than scripts under way, so one is always free.
        return self._free_areas.pop(self._random.randrange(len(self._free_areas)))
