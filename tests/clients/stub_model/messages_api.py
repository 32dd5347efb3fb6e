"""Anthropic Messages: `POST /v1/messages`."""

import json
import re
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

_USAGE = {"input_tokens": 100, "output_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
_SEARCH_TOOL = "ToolSearch"


class MessagesApi(ModelApi):
    """Requests of Claude Code."""

    def list_tools(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for tool in body.get("tools") or []:
            yield tool["name"], tool

    def list_user_texts(self, body: dict[str, Any]) -> Iterator[str]:
        for message in body.get("messages") or []:
            if message["role"] == "user":
                yield from iterate_texts(message["content"])

    def find_loading_call(self, request: ModelRequest, name: str) -> ToolCall | None:
        """Claude Code may list only the names of tools; the model loads them with its search tool."""
        if _SEARCH_TOOL not in request.tools:
            return None
        pattern = re.compile(rf"^(?:mcp__\S+__)?{re.escape(name)}$", re.MULTILINE)
        match = next((match for text in request.texts if (match := pattern.search(text))), None)
        return ToolCall(_SEARCH_TOOL, {"query": f"select:{match[0]}", "max_results": 5}) if match else None

    def render(self, body: dict[str, Any], answer: Answer) -> Rendering:
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        content += [
            {"type": "tool_use", "id": new_id("toolu"), "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        stop = {"stop_reason": "tool_use" if answer.calls else "end_turn", "stop_sequence": None}
        message = {"id": new_id("msg"), "type": "message", "role": "assistant", "model": body.get("model")}
        started: dict[str, Any] = {
            **message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _USAGE,
        }
        events = [_event("message_start", message=started)]
        for index, block in enumerate(content):
            events += _stream_block(index, block)
        events += [_event("message_delta", delta=stop, usage=_USAGE), _event("message_stop")]
        return Rendering({**message, "content": content, **stop, "usage": _USAGE}, events)


def _stream_block(index: int, block: dict[str, Any]) -> list[Event]:
    if block["type"] == "text":
        empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        empty = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return [
        _event("content_block_start", index=index, content_block=empty),
        _event("content_block_delta", index=index, delta=delta),
        _event("content_block_stop", index=index),
    ]


def _event(name: str, **data: Any) -> Event:
    return Event(name, {"type": name, **data})
