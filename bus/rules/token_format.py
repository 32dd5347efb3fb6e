"""The format of bearer tokens and invite codes: generation, recognition, display.

A token is `lbus_`, 43 characters that encode 32 random bytes, and a checksum of 6 characters over everything before
it. With the checksum a secret scanner recognises a token offline, and the gateway refuses a mistyped token without
a query. The checksum protects nothing; only the random bytes do.
"""

import hashlib
import hmac
import re
import secrets
import zlib

TOKEN_PREFIX = "lbus_"  # noqa: S105 - public, part of every token
ACCESS_TOKEN_PREFIX = "lbusa_"  # noqa: S105 - public, part of every access token of a connected client
REFRESH_TOKEN_PREFIX = "lbusr_"  # noqa: S105 - public, part of every refresh token
INVITE_CODE_PREFIX = "inv_"

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTE_COUNT = 32
_BODY_LENGTH = 43  # the fewest base62 digits that hold 256 bits
_CHECKSUM_LENGTH = 6  # the fewest that hold the 32 bits of a CRC
_TOKEN_LENGTH = len(TOKEN_PREFIX) + _BODY_LENGTH + _CHECKSUM_LENGTH
_FAMILY_BYTE_COUNT = 16
_FAMILY_LENGTH = 22  # the fewest base62 digits that hold 128 bits

# Tokens of the original, which an import brings.
_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_BASE64URL_LAST = _BASE64URL[::4].decode()
_LEGACY_TOKEN_LENGTH = 43
_LEGACY_INVITE_CODE = re.compile("[A-Za-z0-9_-]{8,128}")

# Crockford's base 32, without i, l, o and u: a code can be read aloud and retyped.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_INVITE_CODE_LENGTH = 26  # 5 bits each: 130 bits

# Without vowels and letters that look alike (RFC 8628, 6.1).
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_LENGTH = 8


def _encode_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _compute_checksum(text: str) -> str:
    return _encode_base62(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)


def generate_token() -> str:
    """Generate a bearer token of 54 ASCII characters."""
    return _add_checksum(TOKEN_PREFIX + _generate_digits(_RANDOM_BYTE_COUNT, _BODY_LENGTH))


def is_well_formed_token(token: str) -> bool:
    """Whether a text has the form of a token, issued or not. Accepts any text that a client sent after `Bearer`."""
    if len(token) != _TOKEN_LENGTH or not token.startswith(TOKEN_PREFIX) or not token.isascii():
        return False
    return token[len(TOKEN_PREFIX) :].isalnum() and token[-_CHECKSUM_LENGTH:] == _compute_checksum(
        token[:-_CHECKSUM_LENGTH]
    )


def is_legacy_token(token: str) -> bool:
    """Whether a text has the form of a token of the original: 32 bytes in base64url, without padding.

    Only imported tokens have it, so no other text of this form has the fingerprint of a token. The time depends on the
    length alone, not on how much of the text is right.
    """
    if len(token) != _LEGACY_TOKEN_LENGTH or not token.isascii():
        return False
    foreign = token.encode("ascii").translate(None, _BASE64URL)
    # The last character encodes four bits, so its two lowest bits are zero.
    return not foreign and token[-1] in _BASE64URL_LAST


def legacy_display_hint(sha256: bytes) -> str:
    """The displayable part of an imported token, whose text is unknown: the beginning of its SHA-256."""
    return f"SHA-256 {sha256.hex()[:8]}…"


def generate_access_token() -> str:
    """Generate an access token of a connected client, of 55 ASCII characters."""
    return _add_checksum(ACCESS_TOKEN_PREFIX + _generate_digits(_RANDOM_BYTE_COUNT, _BODY_LENGTH))


def is_well_formed_access_token(token: str) -> bool:
    """As `is_well_formed_token`, for access tokens."""
    return _is_well_formed(token, ACCESS_TOKEN_PREFIX, _BODY_LENGTH)


def access_token_fingerprint(token: str, resource: str) -> bytes:
    """As `fingerprint`, bound to the resource that the access token is for: at another one it is unknown."""
    return fingerprint(f"{token}\n{resource}")


def generate_refresh_token() -> str:
    """Generate a refresh token: a new family, which stays when it is rotated, and a secret, which does not."""
    family = _generate_digits(_FAMILY_BYTE_COUNT, _FAMILY_LENGTH)
    return _add_checksum(REFRESH_TOKEN_PREFIX + family + _generate_digits(_RANDOM_BYTE_COUNT, _BODY_LENGTH))


def generate_salt() -> bytes:
    """Generate what `derive_refresh_token` needs beside a token."""
    return secrets.token_bytes(_RANDOM_BYTE_COUNT)


def derive_refresh_token(token: str, salt: bytes) -> str:
    """Return the token that replaces a refresh token, always the same one for a salt.

    So it can be given again for the replaced token, and is not stored.
    """
    family = refresh_token_family(token)
    assert family is not None
    secret = int.from_bytes(hmac.digest(salt, token.encode("ascii"), "sha256"))
    return _add_checksum(REFRESH_TOKEN_PREFIX + family + _encode_base62(secret, _BODY_LENGTH))


def refresh_token_family(token: str) -> str | None:
    """Return the family of a refresh token, issued or not; None if it is malformed."""
    if not _is_well_formed(token, REFRESH_TOKEN_PREFIX, _FAMILY_LENGTH + _BODY_LENGTH):
        return None
    return token[len(REFRESH_TOKEN_PREFIX) :][:_FAMILY_LENGTH]


def generate_authorization_code() -> str:
    """Generate an authorization code of 43 URL-safe characters, which lives for minutes and has no checksum."""
    return secrets.token_urlsafe(_RANDOM_BYTE_COUNT)


def _generate_digits(byte_count: int, width: int) -> str:
    return _encode_base62(int.from_bytes(secrets.token_bytes(byte_count)), width)


def _add_checksum(text: str) -> str:
    return text + _compute_checksum(text)


def _is_well_formed(token: str, prefix: str, body_length: int) -> bool:
    if len(token) != len(prefix) + body_length + _CHECKSUM_LENGTH or not token.startswith(prefix):
        return False
    body = token[len(prefix) :]
    return body.isascii() and body.isalnum() and token == _add_checksum(token[:-_CHECKSUM_LENGTH])


def fingerprint(token: str) -> bytes:
    """The SHA-256 of a token or an invite code, 32 bytes. Nothing else of it is stored.

    A plain hash suffices, since the secret is random and too long for an exhaustive search. Any other text, lone
    surrogates included, gets a fingerprint that matches no token.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def display_hint(token: str) -> str:
    """The displayable part of a token, by which its owner recognises it: its prefix and its last four characters."""
    return f"{token.partition('_')[0]}_…{token[-4:]}"


def is_well_formed_invite_code(text: str) -> bool:
    """Whether a text has the form of an invite code, issued or not."""
    body = text.removeprefix(INVITE_CODE_PREFIX)
    return body != text and len(body) == _INVITE_CODE_LENGTH and all(character in _BASE32 for character in body)


def is_legacy_invite_code(text: str) -> bool:
    """Whether a text may be a code of the original: characters that are safe in an address and in a command."""
    return _LEGACY_INVITE_CODE.fullmatch(text) is not None


def generate_invite_code() -> str:
    """Generate an invite code: `inv_` and 26 URL-safe characters that encode 130 random bits."""
    return INVITE_CODE_PREFIX + "".join(secrets.choice(_BASE32) for _ in range(_INVITE_CODE_LENGTH))


def generate_user_code() -> str:
    """Generate a code that a person types into a page: 8 consonants, which spell no word, with a hyphen."""
    letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(_USER_CODE_LENGTH))
    return f"{letters[:4]}-{letters[4:]}"


def normalize_user_code(text: str) -> str | None:
    """Return a typed user code in the form of `generate_user_code`; None if it cannot be one."""
    letters = "".join(character for character in text.upper() if character not in " -_.\u2010\u2011\u2013")
    if len(letters) != _USER_CODE_LENGTH or any(letter not in _USER_CODE_LETTERS for letter in letters):
        return None
    return f"{letters[:4]}-{letters[4:]}"


def user_code_fingerprint(code: str) -> bytes:
    """A slow hash of a user code: it has 34 bits, which a plain hash would give away to a reader of the database."""
    return hashlib.scrypt(code.encode("ascii"), salt=b"llm-bus user code", n=2**13, r=8, p=1, dklen=32)
