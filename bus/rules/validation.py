"""Validation of the texts and numbers that clients send.

Each function returns the value to use, or raises InvalidArgument with one sentence that names the argument and the
accepted form. Lengths are counted in code points.
"""

import re
import unicodedata
from datetime import UTC, datetime

from bus.errors import InvalidArgument

RESERVED_HANDLES = frozenset(
    "about account admin api auth billing contact docs healthz help invite join kit llm-bus login logout "  # noqa: SIM905 (a list would take a page)
    "mcp metrics oauth operator pricing privacy readyz root security settings signin signup static status "
    "support system terms www".split()
)

_FORBIDDEN_CONTROL_BYTES = bytes(byte for byte in range(32) if byte not in b"\t\n\r")
_HANDLE_PATTERN = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_SEQUENCE_NAME_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")
# Not email-validator: it refuses localhost, .local, .test and 'a..b@', which stored accounts may have (decision 27).
_EMAIL_LOCAL_PATTERN = re.compile(r'[^\s@<>()\[\],;:\\"]+')
_EMAIL_DOMAIN_PATTERN = re.compile(r"localhost|(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W_](?:[\w-]*[^\W_])?")

# Controls, format characters (bidi and zero-width among them), surrogates, line and paragraph separators.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Rendered as nothing, although Unicode classifies them as letters, marks and symbols.
_INVISIBLE_CHARACTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(point) for point in range(0xE0100, 0xE01F0)
}
# Variation selectors choose between two glyphs of one emoji: harmless to display, but they do not distinguish names.
_VARIATION_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))


def free_text(value: str, argument: str, max_length: int, min_length: int = 1) -> str:
    r"""Check free text: a body, detail, reason, note, status, subject or title.

    Args:
        value: returned unchanged; may contain anything but NUL, lone surrogates and C0 controls other than
            \n, \r and \t.
        argument: the name of the argument, for the message.
        max_length, min_length: bounds of the length, inclusive.
    Raises:
        InvalidArgument: too short, too long, or a refused character.
    """
    _check_length(value, argument, max_length, min_length)
    if value.isascii() and value.isprintable():
        return value
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{argument} contains half of a surrogate pair; send valid Unicode.") from None
    # In UTF-8 these bytes occur in no other character, and bytes.translate is 10 times as fast as a regex.
    if len(raw.translate(None, _FORBIDDEN_CONTROL_BYTES)) != len(raw):
        raise InvalidArgument(f"{argument} contains a control character; of these only \\n, \\r and \\t are accepted.")
    return value


def name(value: str, argument: str, max_length: int = 64) -> str:
    """Check a name that is displayed to others: a lane, a tag, a label, a ref.

    Returns:
        The name in NFC: 1 to `max_length` visible characters, without surrounding white space.
    Raises:
        InvalidArgument: empty, too long, surrounded by white space, or an invisible character (control, bidi,
            zero-width, line separator, lone surrogate).
    """
    # NFC never shortens a text to less than a quarter, so longer texts are refused before the work.
    if len(value) > 4 * max_length:
        _check_length(value, argument, max_length)
    if not (value.isascii() and value.isprintable()):
        value = unicodedata.normalize("NFC", value)
        char = find_invisible_character(value)
        if char is not None:
            raise InvalidArgument(f"{argument} contains an invisible character (U+{ord(char):04X}); remove it.")
        if value and not value.translate(_VARIATION_SELECTORS):
            raise InvalidArgument(f"{argument} has no visible character; send a name.")
    _check_length(value, argument, max_length)
    if value != value.strip():
        raise InvalidArgument(f"{argument} begins or ends with white space; remove it.")
    return value


def find_invisible_character(value: str) -> str | None:
    """Return the first character that is displayed as nothing or changes the display of others; None without one."""
    for char in value:
        if unicodedata.category(char) in _INVISIBLE_CATEGORIES or char in _INVISIBLE_CHARACTERS:
            return char
    return None


def label(value: str, argument: str) -> str:
    """Check the label of a participant: a name of at most 64 characters without '/'.

    Raises:
        InvalidArgument: as for name(), or it contains a '/'.
    """
    if "/" in value:
        raise InvalidArgument(
            f"{argument} must not contain '/', and {_shorten(value)} was sent; send a label such as 'api-agent'."
        )
    return name(value, argument)


def qualified_name(value: str, argument: str) -> tuple[str | None, str]:
    """Parse the name of a participant: 'label', or 'handle/label' of at most 129 characters.

    Returns:
        (handle or None, label). The handle is well formed; the caller looks it up, so a reserved word passes. A name
        without a '/' may also be an owner's handle, which is the qualified name of an owner who acts without a label.
    Raises:
        InvalidArgument: either part is malformed.
    """
    handle_part, slash, label_part = value.partition("/")
    if not slash:
        return None, label(value, argument)
    if "/" in label_part or not label_part or not _is_well_formed_handle(handle_part):
        raise InvalidArgument(
            f"{argument} must be 'label' or 'handle/label', with the handle in lower case; {_shorten(value)} was sent."
        )
    return handle_part, label(label_part, argument)


def label_key(value: str) -> str:
    """The key by which labels are compared: case folded, NFKC, without variation selectors.

    Folding twice is Unicode's definition of a compatibility caseless match (D146): compatibility forms such
    as the Kelvin sign or a small capital fold only after they have been replaced.
    """
    folded = unicodedata.normalize("NFD", value.translate(_VARIATION_SELECTORS)).casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded).casefold())


def handle(value: str, argument: str) -> str:
    """Check the public handle of an owner: lower-case letters, digits and single hyphens inside, at most 64.

    Raises:
        InvalidArgument: malformed, or reserved for the service (RESERVED_HANDLES).
    """
    if not _is_well_formed_handle(value):
        raise InvalidArgument(
            f"{argument} must be 1 to 64 of a-z and 0-9, with single hyphens inside, such as 'ada-l'."
        )
    if value in RESERVED_HANDLES:
        raise InvalidArgument(f"{argument} is a reserved word; choose another.")
    return value


def email(value: str, argument: str) -> str:
    """Check the form of an e-mail address, without sending to it.

    Returns:
        The address in NFC, with its domain in lower case. The local part keeps its case, since only its own server
        knows whether case matters.
    Raises:
        InvalidArgument: longer than 254 characters, white space or control characters, not exactly one @,
            or a domain that has no dot and is not localhost.
    """
    local, _, domain = name(value, argument, 254).rpartition("@")
    domain = domain.lower()
    address = f"{local}@{domain}"
    # In a few scripts lower case is longer, so the length is checked again.
    if len(address) > 254 or not (_EMAIL_LOCAL_PATTERN.fullmatch(local) and _EMAIL_DOMAIN_PATTERN.fullmatch(domain)):
        raise InvalidArgument(f"{argument} must be an e-mail address such as ada@example.org.")
    return address


def sequence_name(value: str, argument: str = "sequence") -> str:
    """Check the name of a sequence: `^[a-z0-9_-]{1,64}$`.

    Raises:
        InvalidArgument: anything else.
    """
    if not _SEQUENCE_NAME_PATTERN.fullmatch(value):
        raise InvalidArgument(
            f"{argument} must be 1 to 64 of a-z, 0-9, '_' and '-', such as 'adr'; {_shorten(value)} was sent."
        )
    return value


def integer(value: int, argument: str, minimum: int, maximum: int) -> int:
    """Check that a whole number lies between `minimum` and `maximum`, both included.

    Raises:
        InvalidArgument: it does not.
    """
    if not minimum <= value <= maximum:
        shown = str(value) if abs(value) < 10**20 else "a larger number"
        raise InvalidArgument(f"{argument} must be a whole number from {minimum} to {maximum}; {shown} was sent.")
    return value


def timestamp(value: str | None, argument: str) -> datetime | None:
    """Parse an ISO 8601 time into an aware UTC datetime. Without an offset it is taken as UTC; None stays None.

    Raises:
        InvalidArgument: malformed, or out of range.
    """
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidArgument(
            f"{argument} must be an ISO 8601 time such as 2026-01-31T12:00:00Z; {value[:40]!r} is not."
        ) from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise InvalidArgument(f"{argument} is out of range: {_shorten(value)}; send a time from this era.") from None


def _is_well_formed_handle(value: str) -> bool:
    return len(value) <= 64 and _HANDLE_PATTERN.fullmatch(value) is not None


def _shorten(value: str) -> str:
    """Show a refused value in a message: quoted, shortened, and without characters that JSON cannot carry."""
    return ascii(value[:40]) if not value.isprintable() else repr(value[:40])


def _check_length(value: str, argument: str, max_length: int, min_length: int = 1) -> None:
    length = len(value)
    if length > max_length:
        raise InvalidArgument(f"{argument} has {length} characters; send at most {max_length}.")
    if length < min_length:
        raise InvalidArgument(f"{argument} has {length or 'no'} characters; send at least {min_length}.")
