"""Verification of the database's certificate, unless the URL or the environment of libpq decides otherwise."""

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import certifi

_LOCAL_NAMES = ("localhost", "")
# Where distributions keep the certificates of the authorities that the machine trusts. The libpq of a wheel has other
# paths built in.
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def verify_certificate(url: str, env: Mapping[str, str] = os.environ) -> str:
    """Return the URL with `sslmode=verify-full` for a server on another machine, and the authorities to trust.

    A URL with an sslmode, or PGSSLMODE in the environment, is returned as it is: a private network without TLS needs
    `sslmode=disable`, and a server with a self-signed certificate `sslrootcert=FILE` or `sslmode=require`.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    if "sslmode" in options or env.get("PGSSLMODE") or "service" in options:
        return url
    hosts = _list_hosts(parts.netloc, options)
    if all(_is_local(host) for host in hosts):
        return url
    added = {"sslmode": "verify-full"}
    if "sslrootcert" not in options and not env.get("PGSSLROOTCERT"):
        added["sslrootcert"] = _find_trusted_certificates(env)
    query = "&".join(filter(None, (parts.query, urlencode(added, safe="/"))))
    return urlunsplit(parts._replace(query=query))


def _list_hosts(netloc: str, options: Mapping[str, list[str]]) -> list[str]:
    if "host" in options or "hostaddr" in options:
        return [host for name in ("host", "hostaddr") for value in options.get(name, ()) for host in value.split(",")]
    hosts = netloc.rpartition("@")[2].split(",")
    return [host.rpartition("]")[0].lstrip("[") if "]" in host else host.partition(":")[0] for host in hosts]


def _is_local(host: str) -> bool:
    # A socket is a folder, in a URL with an encoded slash.
    if host in _LOCAL_NAMES or host.startswith(("/", "@", "%2F", "%2f")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _find_trusted_certificates(env: Mapping[str, str]) -> str:
    candidates = (env.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *_BUNDLES)
    return next((path for path in candidates if path and Path(path).is_file()), certifi.where())
