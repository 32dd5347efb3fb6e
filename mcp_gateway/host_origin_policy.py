"""Host and Origin checks, before anything else is looked at: against DNS rebinding and foreign pages."""

from bus.config.settings import Settings, serves
from mcp_gateway.http_responses import Headers, Reply, json_reply


class Security:
    """Knows the hosts that are served and the origins that may ask."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins

    def check(self, headers: Headers) -> Reply | None:
        """The refusal that these headers earn, or None."""
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not serves(self._hosts, hosts[0]):
            message = "Unknown Host; set ALLOWED_HOSTS to serve it."
            return json_reply(421, {"error": "misdirected request", "message": message})
        for name, value in headers:
            if name == b"origin" and not serves(self._origins, value.decode("latin-1")):
                message = "Unknown Origin; set ALLOWED_ORIGINS to serve it."
                return json_reply(403, {"error": "forbidden origin", "message": message})
        return None
