"""Google Generative Language: `POST /v1beta/models/MODEL:generateContent` and `:streamGenerateContent`."""

from collections.abc import Iterator
from typing import Any

from tests.clients.stub_model.model_api import Answer, Event, ModelApi, Rendering, iterate_texts, new_id

_USAGE = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}


class GenerateContentApi(ModelApi):
    """Requests of Gemini CLI."""

    def list_tools(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for tool in body.get("tools") or []:
            for declaration in tool.get("functionDeclarations") or []:
                yield declaration["name"], declaration

    def list_user_texts(self, body: dict[str, Any]) -> Iterator[str]:
        for content in body.get("contents") or []:
            if content.get("role") == "user":
                yield from iterate_texts(content.get("parts"))

    def render(self, body: dict[str, Any], answer: Answer) -> Rendering:
        parts: list[dict[str, Any]] = [{"text": answer.text}] if answer.text else []
        parts += [{"functionCall": {"name": call.name, "args": call.arguments}} for call in answer.calls]
        document = {
            "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
            "usageMetadata": _USAGE,
            "modelVersion": "stub",
            "responseId": new_id("response"),
        }
        return Rendering(document, [Event(None, document)])
