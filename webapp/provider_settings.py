"""Types of the settings of sign-in providers: clients, issuers, addresses and keys."""

from dataclasses import dataclass, field
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import AfterValidator, Field, SecretStr

from bus.config.field_types import is_secure_url, require_web_url
from bus.config.redaction import quote


def _require_provider_url(url: str) -> str:
    require_web_url(url)
    if not is_secure_url(url):
        raise ValueError(
            "must begin with https://, since secrets are sent there. Only this machine may use http://,"
            f" such as http://localhost:8080. It is {quote(url)}."
        )
    return url


def require_private_key(key: SecretStr | None) -> SecretStr | None:
    """Return what is a private key of a supported kind, or None.

    Raises:
        ValueError: it is none.
    """
    if key is not None:
        try:
            client_key_algorithm(key.get_secret_value())
        except ValueError:
            raise ValueError("must be a private key (RSA or EC P-256) as PEM.") from None
    return key


def client_key_algorithm(pem: str) -> str:
    """Return the JWS algorithm of a client's private key.

    Raises:
        ValueError: it is no private key, or none of a supported kind.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("no usable private key") from error
    if isinstance(key, RSAPrivateKey):
        return "RS256"
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    raise ValueError("an unsupported kind of key")


def _drop_trailing_slashes(url: str) -> str:
    return url.rstrip("/")


Issuer = Annotated[str, AfterValidator(_require_provider_url), Field(title="URL: https://, or http:// of this machine")]


ProviderUrl = Annotated[Issuer, AfterValidator(_drop_trailing_slashes)]


@dataclass(frozen=True)
class OAuthClientSettings:
    """The id and secret of an OAuth client."""

    client_id: str
    client_secret: SecretStr


@dataclass(frozen=True)
class OidcSettings:
    """An OpenID Connect issuer for signing in, configured by discovery."""

    # Not shown, since it may contain credentials.
    issuer: str = field(repr=False)
    client_id: str
    client_secret: SecretStr
    name: str
    trust_email: bool = False
    has_client_key: bool = False
