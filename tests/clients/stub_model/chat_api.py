"""OpenAI Chat Completions: `POST /v1/chat/completions`."""

import json
from collections.abc import Iterator
from typing import Any

from tests.clients.stub_model.model_api import Answer, Event, ModelApi, Rendering, iterate_texts, new_id

_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class ChatApi(ModelApi):
    """Requests of OpenCode, and of most other clients."""

    def list_tools(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for tool in body.get("tools") or []:
            yield tool["function"]["name"], tool

    def list_user_texts(self, body: dict[str, Any]) -> Iterator[str]:
        for message in body.get("messages") or []:
            if message["role"] == "user":
                yield from iterate_texts(message["content"])

    def render(self, body: dict[str, Any], answer: Answer) -> Rendering:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message["tool_calls"] = [
                {
                    "index": index,
                    "id": new_id("call"),
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for index, call in enumerate(answer.calls)
            ]
        reason = "tool_calls" if answer.calls else "stop"
        completion = {"id": new_id("chatcmpl"), "created": 0, "model": body.get("model")}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        chunk = {**completion, "object": "chat.completion.chunk"}
        return Rendering(
            {**completion, "object": "chat.completion", "choices": [choice], "usage": _USAGE},
            [
                Event(None, {**chunk, "choices": [{"index": 0, "delta": message, "finish_reason": None}]}),
                Event(
                    None, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": _USAGE}
                ),
                Event(None, "[DONE]"),
            ],
        )
