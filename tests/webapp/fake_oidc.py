"""Sign-in providers for tests, as real HTTP servers: an OpenID Connect issuer, and GitHub's addresses.

Both are strict: what the specification (or GitHub's documentation) wants of a client, they want. What they say can be
spoilt, to see who notices.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import quote_plus, urlencode

from flask import Flask, Response, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as BaseResponse

CLIENT_ID, CLIENT_SECRET = "the-bus", "a secret of the bus: 100% & more"


@cache
def _generate_key(number: int) -> RSAKey:
    """Return the key of this number; issuers share them, since a new one takes up to half a second."""
    return RSAKey.generate_key(2048, parameters={"kid": f"key-{number}"})


class FakeOidcProvider:
    """An OpenID Connect issuer: discovery, keys, the code flow with PKCE and nonce, userinfo.

    Attributes:
        user_claims: the claims about the user at the browser.
        claim_overrides: claims of the ID token that are replaced; None removes one.
        userinfo_only_claims: claims that only userinfo returns.
        userinfo_overrides: claims of userinfo that are replaced; None removes one.
        algorithm: with which ID tokens are signed.
        shared_secret: signs with HS256; the public key if empty.
        published_key: the key that the issuer publishes; `key` signs.
        clock_offset_seconds: by how much its clock is ahead.
        access_token_seconds: lifetime of access tokens.
        client_key: the public key of the client, which then authenticates with it alone.
        metadata_overrides: members of the metadata that are replaced; None removes one.
        replies: views that answer in place of a path's own.
        failing_paths: paths that answer 500.
        request_counts: how often each path was requested.
    """

    def __init__(self) -> None:
        self.url = ""
        self.user_claims: dict[str, Any] = {
            "sub": "ada-at-the-issuer",
            "email": "ada@example.org",
            "email_verified": True,
            "preferred_username": "Ada L.",
        }
        self.claim_overrides: dict[str, Any] = {}
        self.userinfo_only_claims: set[str] = set()
        self.userinfo_overrides: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.shared_secret = b""
        self.clock_offset_seconds = 0
        self.access_token_seconds = 300
        self.client_key: RSAKey | ECKey | None = None
        self.metadata_overrides: dict[str, Any] = {}
        self.replies: dict[str, Callable[[], Any]] = {}
        self.failing_paths: set[str] = set()
        self.request_counts: dict[str, int] = {}
        self.pending_codes: dict[str, dict[str, str]] = {}
        self.access_tokens: set[str] = set()
        self._key_numbers = count()
        self.rotate_key()
        self.app = Flask("issuer")
        self.app.before_request(self._count_request)
        for path, view in (
            ("/.well-known/openid-configuration", self._configuration),
            ("/keys", self._keys),
            ("/authorize", self._authorize),
            ("/userinfo", self._userinfo),
        ):
            self.app.add_url_rule(path, view.__name__, view)
        self.app.add_url_rule("/token", "token", self._token, methods=["POST"])

    def env(self) -> dict[str, str]:
        """The settings of a web application that uses this issuer."""
        return {
            "OIDC_ISSUER": self.url,
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "OIDC_NAME": "Example Inc.",
            "PROVIDER_SECONDS": "2",
        }

    def rotate_key(self) -> None:
        """Replace the signing key."""
        self.key = self.published_key = _generate_key(next(self._key_numbers))

    def replace_key_and_keep_its_id(self) -> None:
        """Replace the signing key by another one with the same id; the old one stays published."""
        new = _generate_key(next(self._key_numbers)).as_dict(private=True)
        assert self.key.kid is not None
        self.key = RSAKey.import_key(new | {"kid": self.key.kid})

    def _count_request(self) -> Any:
        self.request_counts[request.path] = self.request_counts.get(request.path, 0) + 1
        if request.path in self.failing_paths:
            raise RuntimeError("broken on purpose")
        reply = self.replies.get(request.path)
        return None if reply is None else reply()

    def _configuration(self) -> Response:
        metadata = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return jsonify(_replace_members(metadata, self.metadata_overrides))

    def _keys(self) -> Response:
        return jsonify(keys=[self.published_key.as_dict(private=False)])

    def _authorize(self) -> BaseResponse:
        sent = request.args
        if sent.get("client_id") != CLIENT_ID or sent.get("response_type") != "code":
            raise BadRequest("client_id or response_type")
        if "openid" not in sent.get("scope", "").split() or not sent.get("state") or not sent.get("nonce"):
            raise BadRequest("scope, state or nonce")
        if sent.get("code_challenge_method") != "S256" or len(sent.get("code_challenge", "")) != 43:
            raise BadRequest("PKCE")
        code = secrets.token_urlsafe(16)
        self.pending_codes[code] = {name: sent[name] for name in ("redirect_uri", "nonce", "code_challenge")}
        query = urlencode({"code": code, "state": sent["state"], "iss": self.url})
        return redirect(f"{sent['redirect_uri']}?{query}")

    def _token(self) -> Response | tuple[Response, int]:
        if not self._is_client_authenticated():
            return jsonify(error="invalid_client"), 401
        kept = self.pending_codes.pop(request.form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(request.form.get("code_verifier", "").encode()).digest())
        if (
            kept is None
            or request.form.get("grant_type") != "authorization_code"
            or request.form.get("redirect_uri") != kept["redirect_uri"]
            or challenge.rstrip(b"=").decode() != kept["code_challenge"]
        ):
            return jsonify(error="invalid_grant"), 400
        access = secrets.token_urlsafe(16)
        self.access_tokens.add(access)
        half = hashlib.sha256(access.encode()).digest()[:16]
        now = int(time.time()) + self.clock_offset_seconds
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "nonce": kept["nonce"],
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            **{name: value for name, value in self.user_claims.items() if name not in self.userinfo_only_claims},
        }
        id_token = self._sign_id_token(_replace_members(claims, self.claim_overrides))
        return jsonify(
            access_token=access,
            token_type="Bearer",
            expires_in=self.access_token_seconds,
            refresh_token=secrets.token_urlsafe(16),
            id_token=id_token,
        )

    def _is_client_authenticated(self) -> bool:
        methods = self.metadata_overrides.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        header = request.headers.get("Authorization")
        if self.client_key is not None:
            # RFC 7523: a signed assertion, which names the token endpoint.
            if not request.form.get("client_assertion_type", "").endswith("jwt-bearer") or header is not None:
                return False
            claims = jwt.decode(request.form["client_assertion"], self.client_key, algorithms=["RS256", "ES256"]).claims
            audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            return (claims["iss"], claims["sub"]) == (CLIENT_ID, CLIENT_ID) and f"{self.url}/token" in audience
        if header is None:
            sent = (request.form.get("client_id"), request.form.get("client_secret"))
            return "client_secret_post" in methods and sent == (CLIENT_ID, CLIENT_SECRET)
        # RFC 6749, 2.3.1: both are form-encoded first.
        expected = f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}"
        return "client_secret_basic" in methods and header == f"Basic {base64.b64encode(expected.encode()).decode()}"

    def _sign_id_token(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm in ("none", "HS256"):
            # Assembled manually: libraries refuse to sign with a public key or without a key.
            parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
            secret = self.shared_secret or self.key.as_pem(private=False)
            mark = b"" if self.algorithm == "none" else hmac.digest(secret, b".".join(parts), "sha256")
            return b".".join([*parts, base64.urlsafe_b64encode(mark).rstrip(b"=")]).decode()
        return jwt.encode(header, claims, self.key)

    def _userinfo(self) -> Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.access_tokens:
            raise Unauthorized
        return jsonify(_replace_members(self.user_claims, self.userinfo_overrides))


def _replace_members(document: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**document, **overrides}.items() if value is not None}


class FakeGitHub:
    """The two OAuth endpoints and the two user endpoints of GitHub."""

    def __init__(self) -> None:
        self.url = ""
        self.user: dict[str, Any] = {"id": 1815, "login": "ada-lovelace"}
        self.emails: Any = [
            {"email": "old@example.org", "primary": False, "verified": True, "visibility": None},
            {"email": "ada@example.org", "primary": True, "verified": True, "visibility": "private"},
        ]
        self.pending_codes: dict[str, dict[str, str]] = {}
        self.access_tokens: set[str] = set()
        self.app = Flask("github")
        self.app.add_url_rule("/login/oauth/authorize", "authorize", self._authorize)
        self.app.add_url_rule("/login/oauth/access_token", "token", self._token, methods=["POST"])
        self.app.add_url_rule("/api/user", "user", lambda: self._respond_to_token_holder(self.user))
        self.app.add_url_rule("/api/user/emails", "emails", lambda: self._respond_to_token_holder(self.emails))

    def env(self) -> dict[str, str]:
        """The settings of a web application that uses this GitHub."""
        return {
            "GITHUB_CLIENT_ID": CLIENT_ID,
            "GITHUB_CLIENT_SECRET": CLIENT_SECRET,
            "GITHUB_URL": self.url,
            "GITHUB_API_URL": f"{self.url}/api",
        }

    def _authorize(self) -> BaseResponse:
        sent = request.args
        if sent.get("client_id") != CLIENT_ID or not sent.get("state"):
            raise BadRequest("client_id or state")
        if "user:email" not in sent.get("scope", "").split():
            raise BadRequest("scope")
        code = secrets.token_hex(10)
        self.pending_codes[code] = {"redirect_uri": sent["redirect_uri"], "code_challenge": sent["code_challenge"]}
        return redirect(f"{sent['redirect_uri']}?{urlencode({'code': code, 'state': sent['state']})}")

    def _token(self) -> Response:
        if "application/json" not in request.headers.get("Accept", ""):
            raise BadRequest("GitHub answers in a form unless JSON is asked for")
        kept = self.pending_codes.pop(request.form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(request.form.get("code_verifier", "").encode()).digest())
        if request.form.get("client_id") != CLIENT_ID or request.form.get("client_secret") != CLIENT_SECRET:
            return jsonify(error="incorrect_client_credentials")
        # GitHub answers a bad code with 200.
        if kept is None or challenge.rstrip(b"=").decode() != kept["code_challenge"]:
            return jsonify(error="bad_verification_code", error_description="The code is incorrect or expired.")
        token = f"gho_{secrets.token_hex(12)}"
        self.access_tokens.add(token)
        return jsonify(access_token=token, scope="read:user,user:email", token_type="bearer")

    def _respond_to_token_holder(self, payload: Any) -> Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.access_tokens:
            raise Unauthorized
        return jsonify(payload)


class _SilentRequestHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name it has in Werkzeug
        """Suppress the access log."""


@contextmanager
def running_provider(provider: FakeOidcProvider | FakeGitHub) -> Iterator[None]:
    """Serve a provider on a free port; its address is `url`."""
    server = make_server("127.0.0.1", 0, provider.app, threaded=True, request_handler=_SilentRequestHandler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="provider")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
