"""Bearer tokens and invite codes: how they are made, recognised and shown.

A token is `lbus_`, 43 characters that carry 32 random bytes, and 6 characters of checksum over all that
stands before them. The checksum lets a secret scanner tell a token from noise without asking anybody, and
lets a gateway refuse a mistyped one without a query. It protects nothing: only the random bytes do.
"""

import hashlib
import secrets
import zlib

TOKEN_PREFIX = "lbus_"
INVITE_CODE_PREFIX = "inv_"

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTE_COUNT = 32
_BODY_LENGTH = 43  # the fewest base62 digits that hold 256 bits
_CHECKSUM_LENGTH = 6  # the fewest that hold the 32 bits of a CRC
_TOKEN_LENGTH = len(TOKEN_PREFIX) + _BODY_LENGTH + _CHECKSUM_LENGTH

# Crockford's base 32: no i, l, o or u, so a code survives being read aloud or retyped.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_INVITE_CODE_LENGTH = 26  # 5 bits each: 130 bits


def _encode_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _compute_checksum(text: str) -> str:
    return _encode_base62(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)


def generate_token() -> str:
    """Make a new bearer token of 54 ASCII characters."""
    text = TOKEN_PREFIX + _encode_base62(int.from_bytes(secrets.token_bytes(_RANDOM_BYTE_COUNT)), _BODY_LENGTH)
    return text + _compute_checksum(text)


def is_well_formed_token(token: str) -> bool:
    """Whether this has the form of a token; says nothing about whether one was ever issued.

    Takes any text, so that whatever a client put behind `Bearer` can be asked about as it is.
    """
    if len(token) != _TOKEN_LENGTH or not token.startswith(TOKEN_PREFIX) or not token.isascii():
        return False
    return token[len(TOKEN_PREFIX) :].isalnum() and token[-_CHECKSUM_LENGTH:] == _compute_checksum(
        token[:-_CHECKSUM_LENGTH]
    )


def fingerprint(token: str) -> bytes:
    """The SHA-256 of a token or an invite code, 32 bytes: all of it that is ever stored.

    A plain hash is enough, since what it hides is random and longer than anyone can search. Text that is no
    token, lone surrogates included, gets a fingerprint that matches none.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def display_hint(token: str) -> str:
    """What may be shown of a token, so that its owner knows it again: `lbus_…` and its last four."""
    return f"{TOKEN_PREFIX}…{token[-4:]}"


def is_well_formed_invite_code(text: str) -> bool:
    """Whether this has the form of an invite code; says nothing about whether one was ever issued."""
    rest = text.removeprefix(INVITE_CODE_PREFIX)
    return rest != text and len(rest) == _INVITE_CODE_LENGTH and all(character in _BASE32 for character in rest)


def generate_invite_code() -> str:
    """Make a new invite code: `inv_` and 26 URL-safe characters that carry 130 random bits."""
    return INVITE_CODE_PREFIX + "".join(secrets.choice(_BASE32) for _ in range(_INVITE_CODE_LENGTH))
