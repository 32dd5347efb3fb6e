"""The head of a request to /mcp: everything that its headers decide before its body is read."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from bus.rules.client_names import identify_product
from mcp_gateway.caller import CallerCache, bearer_token_fingerprint
from mcp_gateway.cors import answer_preflight, cors_headers
from mcp_gateway.direct_call import ProtocolInfo
from mcp_gateway.host_origin_policy import HostOriginPolicy
from mcp_gateway.http_responses import Headers, HttpResponse, json_response
from mcp_gateway.session_key import InvalidSessionKey, find_in_headers, invalid_key_response

# These differ from call to call and decide nothing here; all other headers of an agent repeat.
_VARYING_HEADERS = frozenset({b"content-length", b"x-request-id"})
# Heads differ by client and tool; beyond this number the oldest are not worth their memory.
_MAX_CACHED_HEADS = 8192


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request. The same headers always give the same values.

    Attributes:
        rejection: the response to a request whose headers are not acceptable, else None.
        token_fingerprint: the fingerprint of the bearer token; None without a well-formed token.
        protocol: the protocol of a call that may be answered directly; None if the SDK must handle the request.
        session: the key of the caller's session, if a header names it.
        client: the client, if the User-Agent is of a known one.
        cors_headers: what the response carries in addition, so that a browser shows it to a page of another origin.
    """

    rejection: HttpResponse | None
    token_fingerprint: bytes | None = None
    protocol: ProtocolInfo | None = None
    session: str | None = None
    client: str | None = None
    cors_headers: Headers | None = None


class RequestHeadReader:
    """Reads the heads of requests and caches the results.

    An agent repeats its headers from call to call. The cache key is a SHA-256, since the headers contain a bearer
    token. A cached result holds only facts that no revocation changes: the call's own statement checks the token.

    Args:
        policy: checks hosts and origins.
        callers: the tokens that this process knows; heads with other tokens are not cached.
        parse_protocol: returns the protocol information of a call that may be answered directly.
        resource: the resource for which access tokens must have been issued; None if none are accepted.
    """

    def __init__(
        self,
        policy: HostOriginPolicy,
        callers: CallerCache,
        parse_protocol: Callable[[Headers], ProtocolInfo | None],
        resource: str | None = None,
    ) -> None:
        self._policy = policy
        self._callers = callers
        self._parse_protocol = parse_protocol
        self._resource = resource
        self._cache: dict[bytes, RequestHead] = {}

    def read(self, method: str, headers: Headers) -> RequestHead:
        """Check the headers of a request, with names in lower case."""
        parts = [method.encode()]
        for name, value in headers:
            if name not in _VARYING_HEADERS:
                parts += (name, value)
        # A header contains no NUL, so different headers give different keys.
        key = hashlib.sha256(b"\0".join(parts)).digest()
        head = self._cache.get(key)
        if head is None:
            head = self._read_uncached(method, headers)
            fingerprint = head.token_fingerprint
            if fingerprint is not None and self._callers.find_cached(fingerprint) is not None:
                if len(self._cache) >= _MAX_CACHED_HEADS:
                    self._cache.clear()
                self._cache[key] = head
        return head

    def _read_uncached(self, method: str, headers: Headers) -> RequestHead:
        violation = self._policy.find_violation(headers)
        if violation is not None:
            return RequestHead(violation)
        preflight_response = answer_preflight(method, headers)
        head = self._read_allowed(method, headers) if preflight_response is None else RequestHead(preflight_response)
        return replace(head, cors_headers=cors_headers(headers) or None)

    def _read_allowed(self, method: str, headers: Headers) -> RequestHead:
        """Read the head of a request of an allowed host and origin."""
        authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        if len(authorizations) > 1:
            error = {"error": "invalid request", "message": "Send one Authorization header."}
            return RequestHead(json_response(400, error))
        fingerprint = bearer_token_fingerprint(authorizations[0], self._resource) if authorizations else None
        if fingerprint is None:
            return RequestHead(None)
        try:
            session = find_in_headers(headers)
        except InvalidSessionKey:
            return RequestHead(invalid_key_response())
        user_agent = next((value.decode("latin-1") for name, value in headers if name == b"user-agent"), "")
        protocol = self._parse_protocol(headers) if method == "POST" else None
        return RequestHead(None, fingerprint, protocol, session, identify_product(user_agent))
