"""Host and Origin checks against DNS rebinding and cross-origin requests; they precede all other checks."""

from bus.config.settings import Settings, is_allowed
from mcp_gateway.http_responses import Headers, HttpResponse, json_response


class HostOriginPolicy:
    """The allowed hosts and origins of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._allowed_hosts = settings.allowed_hosts
        self._allowed_origins = settings.allowed_origins

    def find_violation(self, headers: Headers) -> HttpResponse | None:
        """Return the response that refuses these headers, or None if they are allowed."""
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not is_allowed(self._allowed_hosts, hosts[0]):
            message = "Unknown Host; set ALLOWED_HOSTS to serve it."
            return json_response(421, {"error": "misdirected request", "message": message})
        for name, value in headers:
            if name == b"origin" and not is_allowed(self._allowed_origins, value.decode("latin-1")):
                message = "Unknown Origin; set ALLOWED_ORIGINS to serve it."
                return json_response(403, {"error": "forbidden origin", "message": message})
        return None
