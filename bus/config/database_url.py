"""The URL of the database, as platforms and libraries spell it."""

from bus.config.database_tls import verify_certificate
from bus.config.errors import SettingError


def normalise_database_url(url: str, variable: str = "DATABASE_URL") -> str:
    """Accept the spelling `postgres://` that platforms use, drop SQLAlchemy's driver suffix, and verify certificates.

    Raises:
        SettingError: the URL has another scheme.
    """
    try:
        return parse_database_url(url)
    except ValueError as error:
        raise SettingError(f"{variable} {error}") from None


def parse_database_url(url: str) -> str:
    """Like `normalise_database_url`, for the field of a settings class: the error does not name the variable.

    The certificate of a server on another machine is verified unless the URL says otherwise.

    Raises:
        ValueError: the URL has another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgres", "postgresql"):
        # Only a scheme is shown: what has another form may begin with a password.
        given = f"it starts with {scheme}://" if separator and scheme.isalnum() else "it has no such start"
        raise ValueError(f"must start with postgresql:// (or postgres://); {given}.")
    return verify_certificate(f"postgresql://{rest}")
