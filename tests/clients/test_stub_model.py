"""The stub of the models' APIs: the form of each answer, and how scripts choose it."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.clients.stub_model.scripts import Script, ScriptBook, Step
from tests.clients.stub_model.server import create_app

_SCHEMA = {"type": "object", "properties": {}}
_PATHS = {
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
    "google": "/v1beta/models/m:streamGenerateContent?alt=sse",
}


@pytest.fixture
def book() -> ScriptBook:
    return ScriptBook()


@pytest.fixture
def client(book: ScriptBook) -> FlaskClient:
    return create_app(book).test_client()


def make_request(api: str, prompt: str, tool_names: tuple[str, ...] = ("mcp__llm-bus__whats_new",)) -> dict[str, Any]:
    """Build a request as the client of this API sends it."""
    tools: list[dict[str, Any]]
    if api == "messages":
        tools = [{"name": name, "input_schema": _SCHEMA} for name in tool_names]
        return {"model": "m", "stream": True, "tools": tools, "messages": [{"role": "user", "content": prompt}]}
    if api == "responses":
        tools = [{"type": "function", "name": name, "parameters": _SCHEMA} for name in tool_names]
        content = [{"type": "input_text", "text": prompt}]
        message = {"type": "message", "role": "user", "content": content}
        return {"model": "m", "stream": True, "tools": tools, "input": [message]}
    if api == "chat":
        tools = [{"type": "function", "function": {"name": name, "parameters": _SCHEMA}} for name in tool_names]
        return {"model": "m", "stream": True, "tools": tools, "messages": [{"role": "user", "content": prompt}]}
    declarations = [{"name": name, "parameters": _SCHEMA} for name in tool_names]
    contents = [{"role": "user", "parts": [{"text": prompt}]}]
    return {"contents": contents, "tools": [{"functionDeclarations": declarations}] if tool_names else []}


def read_events(text: str) -> list[dict[str, Any]]:
    """Parse a stream; the name of an event, where there is one, must equal the type in its data."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields["data"] == "[DONE]":
            continue
        event = json.loads(fields["data"])
        assert fields.get("event") == event.get("type")
        events.append(event)
    return events


def read_answer(api: str, text: str) -> tuple[str, list[tuple[str, Any]]]:
    """Read text and calls from a stream as a client of this API does."""
    events = read_events(text)
    if api == "messages":
        assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
        blocks = {event["index"]: event["content_block"] for event in events if event["type"] == "content_block_start"}
        deltas = {event["index"]: event["delta"] for event in events if event["type"] == "content_block_delta"}
        calls = [
            (block["name"], json.loads(deltas[index]["partial_json"]))
            for index, block in blocks.items()
            if block["type"] == "tool_use"
        ]
        (message_delta,) = [event["delta"] for event in events if event["type"] == "message_delta"]
        assert message_delta["stop_reason"] == ("tool_use" if calls else "end_turn")
        return "".join(delta.get("text", "") for delta in deltas.values()), calls
    if api == "responses":
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        completed = events[-1]["response"]
        assert completed["status"] == "completed"
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert completed["output"] == done
        texts = [item["content"][0]["text"] for item in done if item["type"] == "message"]
        calls = [(item["name"], json.loads(item["arguments"])) for item in done if item["type"] == "function_call"]
        return "".join(texts), calls
    if api == "chat":
        assert text.endswith("data: [DONE]\n\n")
        message = events[0]["choices"][0]["delta"]
        functions = [call["function"] for call in message.get("tool_calls", [])]
        assert events[-1]["choices"][0]["finish_reason"] == ("tool_calls" if functions else "stop")
        return message["content"] or "", [(call["name"], json.loads(call["arguments"])) for call in functions]
    (candidate,) = events[0]["candidates"]
    parts = candidate["content"]["parts"]
    functions = [part["functionCall"] for part in parts if "functionCall" in part]
    return "".join(part.get("text", "") for part in parts), [(call["name"], call["args"]) for call in functions]


@pytest.mark.parametrize("api", _PATHS)
def test_a_step_becomes_a_call_and_then_a_text(client: FlaskClient, book: ScriptBook, api: str) -> None:
    script = book.add([Step("start", "whats_new", {"limit": 5}), Step("end", text="Done")])
    request = make_request(api, f"{script.marker} go")
    answers = [read_answer(api, client.post(_PATHS[api], json=request).text) for _ in range(3)]
    assert answers == [
        ("", [("mcp__llm-bus__whats_new", {"limit": 5})]),
        ("Done", []),
        ("Nothing left to do.", []),
    ]
    assert [exchange.label for exchange in script.exchanges] == ["start", "end", None]


@pytest.mark.parametrize("api", _PATHS)
def test_a_request_without_tools_takes_no_step(client: FlaskClient, book: ScriptBook, api: str) -> None:
    script = book.add([Step("end", text="Done")])
    request = make_request(api, f"{script.marker} go", ())
    assert read_answer(api, client.post(_PATHS[api], json=request).text) == ("A title", [])
    assert script.exchanges == []


@pytest.mark.parametrize("api", ["messages", "responses", "chat"])
def test_a_client_that_wants_no_stream_gets_one_document(client: FlaskClient, book: ScriptBook, api: str) -> None:
    script = book.add([Step("end", text="Done")])
    document = client.post(_PATHS[api], json={**make_request(api, script.marker), "stream": False}).get_json()
    text = {
        "messages": lambda: document["content"][0]["text"],
        "responses": lambda: document["output"][0]["content"][0]["text"],
        "chat": lambda: document["choices"][0]["message"]["content"],
    }[api]()
    assert text == "Done"


def test_a_tool_that_is_not_offered_ends_the_turn(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("start", "claim")])
    answer = client.post(_PATHS["chat"], json=make_request("chat", script.marker)).text
    assert read_answer("chat", answer) == ("No tool claim is offered.", [])
    assert script.exchanges[0].missing_tool == "claim"


def test_a_tool_of_which_claude_code_sends_the_name_is_loaded_first(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("start", "whats_new")])
    request = make_request("messages", f"{script.marker} go", ("ToolSearch",))
    request["system"] = "Tools that can be loaded:\nmcp__llm-bus__ack\nmcp__llm-bus__whats_new\n"
    _, calls = read_answer("messages", client.post(_PATHS["messages"], json=request).text)
    assert calls == [("ToolSearch", {"query": "select:mcp__llm-bus__whats_new", "max_results": 5})]
    loaded = make_request("messages", f"{script.marker} go", ("ToolSearch", "mcp__llm-bus__whats_new"))
    _, calls = read_answer("messages", client.post(_PATHS["messages"], json=loaded).text)
    assert calls == [("mcp__llm-bus__whats_new", {})]
    assert len(script.list_requests_before("start")) == 2


def test_codex_searches_for_a_tool_and_calls_it_in_its_namespace(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("start", "whats_new"), Step("again", "claim")])
    request = make_request("responses", script.marker, ())
    request["tools"] = [{"type": "tool_search", "execution": "client"}]

    def send() -> dict[str, Any]:
        return read_events(client.post(_PATHS["responses"], json=request).text)[-1]["response"]["output"][0]

    search = send()
    assert (search["type"], search["execution"]) == ("tool_search_call", "client")
    assert search["arguments"] == {"query": "whats new"}
    namespace = {"type": "namespace", "name": "mcp__llm_bus", "tools": [{"name": "whats_new", "parameters": _SCHEMA}]}
    request["input"].append({"type": "tool_search_output", "call_id": search["call_id"], "tools": [namespace]})
    call = send()
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "mcp__llm_bus", "whats_new")
    # A search that finds nothing is not repeated.
    assert send()["type"] == "tool_search_call"
    assert send()["content"][0]["text"] == "No tool claim is offered."


def test_codex_gets_the_input_of_a_freeform_tool_as_text(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("edit", "apply_patch", {"input": "*** Begin Patch"})])
    request = make_request("responses", script.marker, ())
    request["tools"] = [{"type": "custom", "name": "apply_patch"}]
    (item,) = read_events(client.post(_PATHS["responses"], json=request).text)[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", "*** Begin Patch")


def test_arguments_can_be_built_from_what_the_model_was_sent(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("ack", "whats_new", lambda request: {"id": request.find_last(r"post (\d+)")})])
    request = make_request("chat", f"{script.marker} post 3, then post 17")
    _, calls = read_answer("chat", client.post(_PATHS["chat"], json=request).text)
    assert calls == [("mcp__llm-bus__whats_new", {"id": "17"})]


def test_sizes_are_split_into_tools_and_prompt(client: FlaskClient, book: ScriptBook) -> None:
    script = book.add([Step("end", text="Done")])
    request = make_request("messages", f"{script.marker} Grüße")
    body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
    client.post(_PATHS["messages"], data=body, content_type="application/json")
    recorded = script.exchanges[0].request
    definition = json.dumps(request["tools"][0], separators=(",", ":"))
    assert recorded.tools == {"mcp__llm-bus__whats_new": len(definition)}
    assert recorded.prompt_size == len(body) - len(definition)


def test_what_a_step_awaits_happens_before_its_answer(client: FlaskClient, book: ScriptBook) -> None:
    happened: list[int] = []
    script: Script = book.add([Step("end", text="Done", before=lambda: happened.append(len(script.exchanges)))])
    client.post(_PATHS["chat"], json=make_request("chat", script.marker))
    assert happened == [0]
