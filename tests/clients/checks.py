"""The rows of the matrix: each reads from the recorded sessions what reached the model."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from bus.agent_guide import INSTRUCTIONS, RULES
from tests.clients.bench import GOVERNED_FILE, LEASED_FILE, MAIL, Sessions
from tests.clients.drivers.driver import Driver
from tests.clients.matrix import NO, SECONDS_ROW, WAKE_SECONDS_ROW, YES, Cell, format_size
from tests.clients.pair import MAIL as PAIR_MAIL
from tests.clients.pair import SECOND, SEEN_BY_BOTH, SEEN_ONCE
from tests.clients.stub_model.model_api import ModelRequest, iterate_texts
from tests.clients.stub_model.scripts import Script

_AFTER_SEARCH = "after a search"
_REFUSAL = re.compile(r"insufficient.scope|additional permissions|upscoping", re.IGNORECASE)


@dataclass(frozen=True)
class Check:
    """A row of the matrix.

    Attributes:
        key: names the check in `Driver.notes`.
        evaluate: returns the cell's value.
    """

    key: str
    row: str
    evaluate: Callable[[Driver, Sessions], str]


def evaluate_all(driver: Driver, sessions: Sessions) -> dict[str, Cell]:
    """Return the cells of a client by row."""
    cells = {}
    for check in CHECKS:
        value = check.evaluate(driver, sessions)
        cells[check.row] = Cell(value, None if value == YES else driver.notes.get(check.key))
    return cells


def find_unexplained(cells: dict[str, Cell]) -> list[str]:
    """Return the rows with a "no" for which no reason is known."""
    return [row for row, cell in cells.items() if cell.value == NO and cell.note is None]


def _version(driver: Driver, sessions: Sessions) -> str:
    match = re.search(r"\d+\.\d+\.\d+", sessions.version)
    return match[0] if match else NO


def _server_is_listed(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(re.search(driver.listed_pattern, sessions.listing) is not None)


def _tools_reach_the_model(driver: Driver, sessions: Sessions) -> str:
    requests = sessions.work.list_requests_before("start")
    if requests and requests[0].find_tool("whats_new"):
        return YES
    return _AFTER_SEARCH if requests and requests[-1].find_tool("whats_new") else NO


def _tool_is_called(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(any("latest_claims" in text for text in _new_texts(sessions.work, "start")))


def _instructions_reach_the_model(driver: Driver, sessions: Sessions) -> str:
    if _contains_lines(_first_request(sessions.work), INSTRUCTIONS):
        return YES
    requests = sessions.work.list_requests_before("start")
    return _AFTER_SEARCH if requests and _contains_lines(requests[-1], INSTRUCTIONS) else NO


def _rules_reach_the_model(driver: Driver, sessions: Sessions) -> str:
    rules = "\n".join(rule.to_list_item() for rule in RULES)
    return _yes_if(_contains_lines(_first_request(sessions.work), rules))


def _greeting_reaches_the_model(driver: Driver, sessions: Sessions) -> str:
    request = _first_request(sessions.work)
    return _yes_if(request is not None and request.contains(f"you are {sessions.team.alice.actor}"))


def _lease_is_shown_before_the_edit(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(_mentions_bob(sessions, "edit"))


def _number_is_checked_at_the_write(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(_mentions_bob(sessions, "number"))


def _commit_is_blocked(driver: Driver, sessions: Sessions) -> str:
    texts = _new_texts(sessions.work, "commit")
    return _yes_if(sessions.blocked_commit and any("git mv" in text and GOVERNED_FILE in text for text in texts))


def _commit_shows_the_lease(driver: Driver, sessions: Sessions) -> str:
    texts = _new_texts(sessions.work, "commit")
    return _yes_if(any(f"{LEASED_FILE} is leased by {sessions.team.bob.actor}" in text for text in texts))


def _mail_is_shown_during_work(driver: Driver, sessions: Sessions) -> str:
    scripts = (sessions.pair.first, sessions.pair.second)
    return _yes_if(all(any(PAIR_MAIL in text for text in _new_texts(script, "command")) for script in scripts))


def _each_session_sees_events_once(driver: Driver, sessions: Sessions) -> str:
    counts = []
    for script in (sessions.pair.first, sessions.pair.second):
        news, again = (_new_texts(script, label) for label in ("news", "again"))
        counts.append((any(SEEN_ONCE in text for text in news), any(SEEN_ONCE in text for text in again)))
    return _yes_if(counts == [(True, False), (True, False)])


def _a_release_is_of_one_session(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(sessions.pair.held == [f"src/{SECOND}/**"])


def _an_edit_shows_another_session(driver: Driver, sessions: Sessions) -> str:
    texts = _new_texts(sessions.pair.first, "edit")
    return _yes_if(any("another session of yours" in text and f"src/{SECOND}/**" in text for text in texts))


def _leases_end_with_the_session(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(sessions.pair.left == [])


def _a_subagent_takes_nothing(driver: Driver, sessions: Sessions) -> str:
    scripts = (sessions.pair.parent, sessions.pair.subagent)
    return _yes_if(
        all(
            script is not None and any(SEEN_BY_BOTH in text for text in _new_texts(script, "news"))
            for script in scripts
        )
    )


def _an_idle_session_is_woken(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(sessions.wake is not None)


def _seconds_until_woken(driver: Driver, sessions: Sessions) -> str:
    return NO if sessions.wake is None else " and ".join(f"{seconds:.1f}" for seconds in sessions.wake.seconds)


def _signs_in(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(any("latest_claims" in text for text in _new_texts(sessions.sign_in.session, "read")))


def _identification(driver: Driver, sessions: Sessions) -> str:
    return "registers itself" if sessions.sign_in.is_registered else "its document"


def _refusal_reaches_the_model(driver: Driver, sessions: Sessions) -> str:
    texts = _new_texts(sessions.sign_in.session, "write")
    return _yes_if(any(_REFUSAL.search(text) for text in texts))


def _doctor_reports_no_problem(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(sessions.doctor_passed)


def _mail_stops_a_stop(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(any(MAIL in text for text in _new_texts(sessions.work, "stop")))


def _tool_is_called_unattended(driver: Driver, sessions: Sessions) -> str:
    return _yes_if(any("latest_claims" in text for text in _new_texts(sessions.unattended, "start")))


def _added_to_the_first_request(driver: Driver, sessions: Sessions) -> str:
    return _format_added(_first_request(sessions.before), _first_request(sessions.work))


def _added_after_the_first_tool(driver: Driver, sessions: Sessions) -> str:
    requests = sessions.work.list_requests_before("start")
    if len(requests) == 1:
        return "the same"
    return _format_added(_first_request(sessions.before), requests[-1] if requests else None)


def _seconds(driver: Driver, sessions: Sessions) -> str:
    seconds = sessions.seconds_to_first_result
    return NO if seconds is None else f"{seconds:.1f}"


CHECKS = (
    Check("version", "Version", _version),
    Check("listed", "`mcp list` shows the server", _server_is_listed),
    Check("tools", "The tools reach the model", _tools_reach_the_model),
    Check("call", "A call of a tool returns its result", _tool_is_called),
    Check("unattended", "The same in a session without a terminal and without approval", _tool_is_called_unattended),
    Check("instructions", "The server's instructions reach the model", _instructions_reach_the_model),
    Check("rules", "The rules reach the model with the first request", _rules_reach_the_model),
    Check("greeting", "The greeting (identity, news, handoffs) reaches the model", _greeting_reaches_the_model),
    Check("lease_before_edit", "An edit of a leased file shows the holder", _lease_is_shown_before_the_edit),
    Check("number_at_write", "Writing a file with another's number shows its owner", _number_is_checked_at_the_write),
    Check("commit_number", "A commit with another's number is blocked", _commit_is_blocked),
    Check("commit_lease", "A commit of a leased file names the holder", _commit_shows_the_lease),
    Check("stop", "An unread handoff stops a stop", _mail_stops_a_stop),
    Check("mail", "A post during a long command is in the next request", _mail_is_shown_during_work),
    Check("events", "Two sessions on one token: each sees every event once", _each_session_sees_events_once),
    Check("release", "… a release ends only the leases of its session", _a_release_is_of_one_session),
    Check("session_lease", "… an edit shows the lease of the other session", _an_edit_shows_another_session),
    Check("end", "… the leases of a session end with it", _leases_end_with_the_session),
    Check("subagent", "A subagent takes no events from its parent", _a_subagent_takes_nothing),
    Check("wake", "A post wakes an idle session in a terminal", _an_idle_session_is_woken),
    Check("wake_seconds", WAKE_SECONDS_ROW, _seconds_until_woken),
    Check("sign_in", "Signs in with the address alone: a call returns its result", _signs_in),
    Check("identification", "… identified by", _identification),
    Check(
        "refusal", "… a call beyond read-only rights: the model learns why it is refused", _refusal_reaches_the_model
    ),
    Check("doctor", "The kit's doctor reports no problem after a session", _doctor_reports_no_problem),
    Check("bytes", "Added to the first request: tools + prompt", _added_to_the_first_request),
    Check("loaded_bytes", "Added once the model has searched for a tool", _added_after_the_first_tool),
    Check("seconds", SECONDS_ROW, _seconds),
)


def _yes_if(passed: bool) -> str:
    return YES if passed else NO


def _first_request(script: Script) -> ModelRequest | None:
    return script.exchanges[0].request if script.exchanges else None


def _contains_lines(request: ModelRequest | None, text: str) -> bool:
    """Whether every line of a text is in the request, also where the client puts it into a tool's definition."""
    if request is None:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    sent = "\n".join(iterate_texts(request.body))
    return all(line in sent for line in lines)


def _new_texts(script: Script, label: str) -> list[str]:
    """The texts of the request after a step that were not in the request before it, nor in the step's answer."""
    before = [exchange for exchange in script.exchanges if exchange.label == label]
    after = script.find_request_after(label)
    if not before or after is None:
        return []
    known = {*before[0].request.texts}
    return [text for text in after.texts if text not in known]


def _mentions_bob(sessions: Sessions, label: str) -> bool:
    return any(sessions.team.bob.actor in text for text in _new_texts(sessions.work, label))


def _format_added(before: ModelRequest | None, after: ModelRequest | None) -> str:
    if before is None or after is None:
        return NO
    tools = sum(after.tools.values()) - sum(before.tools.values())
    prompt = after.prompt_size - before.prompt_size
    return f"{format_size(tools)} + {format_size(prompt)}"
