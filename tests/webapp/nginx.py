"""nginx with the configuration of deploy/, on free ports and with a certificate of its own."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.certificates import write_certificate
from tests.concurrency import wait_until
from tests.servers import free_port
from tests.webapp.live_server import is_listening

_CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
# Folders that a user other than root may write.
_MAIN = """
pid {folder}/pid; error_log {folder}/error.log; daemon off; events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/bus.conf;
}}
"""
SKIP_REASON = "nginx is not installed (on Debian: apt-get install nginx-light)."


def find_nginx() -> str | None:
    """Return the path of nginx, or None."""
    return shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")


@contextmanager
def running_nginx(folder: Path, port: int, web_url: str) -> Iterator[Path]:
    """Run nginx for https://localhost on a port, and yield the path of its access log.

    Args:
        folder: an empty folder for its files.
        port: for https.
        web_url: the web, on http.
    """
    certificate = write_certificate(folder)
    text = _CONFIGURATION.read_text("utf-8")
    text = re.sub(r"/etc/ssl/bus\.example\.org/\w+\.pem", str(certificate), text)
    text = text.replace("/var/log/nginx", str(folder)).replace("bus.example.org", "localhost")
    # A machine may have no IPv6.
    text = re.sub(r"\n *listen \[::\][^\n]*", "", text)
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}").replace(
        "listen 80", f"listen 127.0.0.1:{free_port()}"
    )
    text = text.replace("127.0.0.1:8787", web_url.removeprefix("http://"))
    (folder / "bus.conf").write_text(text)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
    nginx = find_nginx()
    assert nginx is not None
    with subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_listening(port) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[1]
            yield folder / "llm-bus.log"
        finally:
            process.terminate()
