"""Host and Origin checks, before anything else is looked at: against DNS rebinding and foreign pages."""

from bus.settings import Settings, without_default_port
from mcp_gateway.replies import Headers, Reply, json_reply


class Security:
    """Knows the hosts that are served and the origins that may ask."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins

    def check(self, headers: Headers) -> Reply | None:
        """The refusal that these headers earn, or None."""
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not _listed(hosts[0], self._hosts):
            message = "Unknown Host; set ALLOWED_HOSTS to serve it."
            return json_reply(421, {"error": "misdirected request", "message": message})
        for name, value in headers:
            if name == b"origin" and not _listed(value.decode("latin-1").lower(), self._origins):
                message = "Unknown Origin; set ALLOWED_ORIGINS to serve it."
                return json_reply(403, {"error": "forbidden origin", "message": message})
        return None


def _listed(value: str, patterns: tuple[str, ...]) -> bool:
    if without_default_port(value) in patterns:
        return True
    base, separator, port = value.rpartition(":")
    return bool(separator) and port.isdigit() and f"{base}:*" in patterns
