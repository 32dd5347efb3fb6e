"""The HTTP server of the stub: every API on one port of 127.0.0.1."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler, make_server

from tests.clients.stub_model.chat_api import ChatApi
from tests.clients.stub_model.generate_content_api import GenerateContentApi
from tests.clients.stub_model.messages_api import MessagesApi
from tests.clients.stub_model.model_api import ModelApi, ModelRequest
from tests.clients.stub_model.responses_api import ResponsesApi
from tests.clients.stub_model.scripts import ScriptBook

MODEL = "stub"


@dataclass(frozen=True)
class StubModel:
    """A running stub."""

    url: str
    book: ScriptBook


class _SilentRequestHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None: ...  # noqa: A002 - the name of the overridden method


@contextmanager
def running_stub() -> Iterator[StubModel]:
    """Serve the stub on a free port."""
    book = ScriptBook()
    server = make_server("127.0.0.1", 0, create_app(book), threaded=True, request_handler=_SilentRequestHandler)
    # Clients keep connections open; their threads must not keep the program alive.
    assert isinstance(server, ThreadedWSGIServer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield StubModel(f"http://127.0.0.1:{server.server_port}", book)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def create_app(book: ScriptBook) -> Flask:
    """Create the application that answers every API from the scripts of `book`."""
    app = Flask(__name__)

    def answer(api: ModelApi, *, stream: bool) -> Response:
        raw_body = _read_body()
        body = json.loads(raw_body)
        rendering = api.render(body, book.answer(ModelRequest(api, body, len(raw_body), time.monotonic())))
        if not stream:
            return _json_response(rendering.document)
        return Response("".join(event.encode() for event in rendering.events), mimetype="text/event-stream")

    def answer_by_flag(api: ModelApi) -> Response:
        return answer(api, stream=bool(json.loads(_read_body()).get("stream")))

    @app.post("/v1/messages")
    def messages() -> Response:
        return answer_by_flag(MessagesApi())

    @app.post("/v1/responses")
    def responses() -> Response:
        return answer_by_flag(ResponsesApi())

    @app.post("/v1/chat/completions")
    def chat_completions() -> Response:
        return answer_by_flag(ChatApi())

    @app.post("/<version>/models/<model>:generateContent")
    def generate_content(version: str, model: str) -> Response:
        return answer(GenerateContentApi(), stream=False)

    @app.post("/<version>/models/<model>:streamGenerateContent")
    def stream_generate_content(version: str, model: str) -> Response:
        return answer(GenerateContentApi(), stream=True)

    @app.post("/v1/messages/count_tokens")
    @app.post("/<version>/models/<model>:countTokens")
    def count_tokens(version: str = "", model: str = "") -> Response:
        count = len(_read_body()) // 4
        return _json_response({"input_tokens": count, "totalTokens": count})

    @app.get("/v1/models")
    def models() -> Response:
        model = {"id": MODEL, "object": "model", "type": "model", "display_name": MODEL, "owned_by": MODEL}
        return _json_response({"object": "list", "data": [model], "models": [], "has_more": False})

    # Telemetry, reachability checks and the like.
    @app.route("/", defaults={"path": ""}, methods=["GET", "HEAD", "POST"])
    @app.route("/<path:path>", methods=["GET", "HEAD", "POST"])
    def other(path: str) -> Response:
        return _json_response({})

    return app


def _read_body() -> bytes:
    body = request.get_data()
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body


def _json_response(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), mimetype="application/json")
