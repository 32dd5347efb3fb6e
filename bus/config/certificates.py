"""The certificate authorities that this machine trusts, read once for all HTTP clients of a process."""

import ssl
from functools import cache

import httpx2


@cache
def trusted_certificates(*, trust_env: bool = True) -> ssl.SSLContext:
    """Return a context for `verify`; reading the certificates takes 20 to 50 ms, longer than most requests.

    Args:
        trust_env: use those of SSL_CERT_FILE or SSL_CERT_DIR, if one is set.
    """
    return httpx2.create_ssl_context(trust_env=trust_env)
