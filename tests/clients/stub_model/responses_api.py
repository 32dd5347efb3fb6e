"""OpenAI Responses: `POST /v1/responses`."""

import json
from collections.abc import Iterator
from typing import Any

from tests.clients.stub_model.model_api import (
    Answer,
    Event,
    ModelApi,
    ModelRequest,
    Rendering,
    ToolCall,
    iterate_texts,
    new_id,
)

_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 110,
}
_SEARCH_TOOL = "tool_search"


class ResponsesApi(ModelApi):
    """Requests of Codex. A tool of a namespace is named `namespace/name` here."""

    def list_tools(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        items = body.get("input")
        # The results of a search are items of the conversation.
        loaded = (
            [tool for item in items if item.get("type") == "tool_search_output" for tool in item["tools"]]
            if isinstance(items, list)
            else []
        )
        for tool in [*(body.get("tools") or []), *loaded]:
            if tool.get("type") == "namespace":
                for member in tool["tools"]:
                    yield f"{tool['name']}/{member['name']}", member
            else:
                yield tool.get("name") or tool["type"], tool

    def list_user_texts(self, body: dict[str, Any]) -> Iterator[str]:
        items = body.get("input") or []
        if isinstance(items, str):
            yield items
            return
        for item in items:
            if item.get("role") == "user":
                yield from iterate_texts(item.get("content"))

    def find_loading_call(self, request: ModelRequest, name: str) -> ToolCall | None:
        """Codex may send no tools of servers; the model finds them with its search tool."""
        return ToolCall(_SEARCH_TOOL, {"query": name.replace("_", " ")}) if _SEARCH_TOOL in request.tools else None

    def render(self, body: dict[str, Any], answer: Answer) -> Rendering:
        response = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": 0,
            "model": body.get("model"),
            "usage": _USAGE,
        }
        freeform_names = {tool.get("name") for tool in body.get("tools") or [] if tool.get("type") == "custom"}
        output = [_make_message(answer.text)] if answer.text else []
        output += [_make_call(call, is_freeform=call.name in freeform_names) for call in answer.calls]
        started: dict[str, Any] = {**response, "status": "in_progress", "output": []}
        completed = {**response, "status": "completed", "output": output}
        events: list[tuple[str, dict[str, Any]]] = [("response.created", {"response": started})]
        for index, item in enumerate(output):
            events.append(("response.output_item.added", {"output_index": index, "item": item}))
            if item["type"] == "message":
                delta = {"item_id": item["id"], "output_index": index, "content_index": 0, "delta": answer.text}
                events.append(("response.output_text.delta", delta))
            events.append(("response.output_item.done", {"output_index": index, "item": item}))
        events.append(("response.completed", {"response": completed}))
        return Rendering(
            completed,
            [
                Event(name, {"type": name, "sequence_number": number, **data})
                for number, (name, data) in enumerate(events)
            ],
        )


def _make_message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": new_id("msg"), "role": "assistant", "status": "completed", "content": content}


def _make_call(call: ToolCall, *, is_freeform: bool) -> dict[str, Any]:
    namespace, _, name = call.name.rpartition("/")
    item: dict[str, Any] = {"id": new_id("fc"), "call_id": new_id("call"), "name": name, "status": "completed"}
    if name == _SEARCH_TOOL:
        del item["name"]
        return {**item, "type": "tool_search_call", "execution": "client", "arguments": call.arguments}
    if namespace:
        item["namespace"] = namespace
    if is_freeform:
        return {**item, "type": "custom_tool_call", "input": call.arguments["input"]}
    return {**item, "type": "function_call", "arguments": json.dumps(call.arguments)}
