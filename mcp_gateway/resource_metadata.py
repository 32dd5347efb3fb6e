"""Metadata of the MCP endpoint as a protected resource (RFC 9728), with which clients find the authorization server."""

from typing import Final

from bus.client_setup import RESOURCE_METADATA_PATH, Endpoints, resource_metadata, resource_metadata_url
from bus.config.settings import Settings
from mcp_gateway.http_responses import HttpResponse, json_response

# Public: a page of any origin may read it.
_CORS_HEADERS: Final = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-headers", b"*")]


class ResourceMetadata:
    """The document, its address and its paths.

    Attributes:
        paths: where the gateway serves it; proxies may map the public path of the endpoint to /mcp.
        url: its public address, which challenges name.
    """

    def __init__(self, settings: Settings) -> None:
        endpoints = Endpoints(settings.public_url, settings.mcp_url)
        self.url = resource_metadata_url(endpoints)
        self.paths = frozenset(
            {
                RESOURCE_METADATA_PATH,
                f"{RESOURCE_METADATA_PATH}/mcp",
                self.url[self.url.index(RESOURCE_METADATA_PATH) :],
            }
        )
        self._document = json_response(200, resource_metadata(endpoints), _CORS_HEADERS)
        self._preflight = HttpResponse(204, [*_CORS_HEADERS, (b"access-control-allow-methods", b"GET")], b"")
        self._wrong_method = json_response(
            405, {"error": "method not allowed", "message": "GET this address."}, [(b"allow", b"GET, HEAD, OPTIONS")]
        )

    def respond(self, method: str) -> HttpResponse:
        """Return the response to a request for the document."""
        if method == "OPTIONS":
            return self._preflight
        return self._document if method in ("GET", "HEAD") else self._wrong_method
