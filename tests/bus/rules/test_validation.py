import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import InvalidArgument
from bus.rules import validation

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=80)


def refusal_of(check: Callable[..., Any], *arguments: Any) -> str:
    """Assert that the check refuses the arguments; return its message, which is one sentence."""
    with pytest.raises(InvalidArgument) as caught:
        check(*arguments)
    sentence = caught.value.message
    assert sentence.endswith(".")
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize(
    "value", ["x", "a\n\tb\r\n", "Grüße, мир 🎉", "👩\u200d💻 \u202eleft", "\x7f\x85", " ", "\U0010ffff"]
)
def test_free_text_is_returned_unchanged(value: str) -> None:
    assert validation.free_text(value, "body", 100) is value


@pytest.mark.parametrize("char", [chr(point) for point in range(32) if point not in b"\t\n\r"])
@pytest.mark.parametrize("around", ["", "plain", "\n", "ü"])
def test_free_text_refuses_nul_and_controls(around: str, char: str) -> None:
    assert refusal_of(validation.free_text, around + char + around, "body", 100).startswith("body contains a control")


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_free_text_refuses_lone_surrogates(value: str) -> None:
    assert refusal_of(validation.free_text, value, "body", 100).startswith("body contains half of a surrogate pair")


def test_free_text_is_counted_in_code_points() -> None:
    assert validation.free_text("🎉" * 8000, "body", 8000)
    assert refusal_of(validation.free_text, "🎉" * 8001, "body", 8000) == "body has 8001 characters; send at most 8000."
    assert refusal_of(validation.free_text, "", "body", 8000) == "body has no characters; send at least 1."
    assert validation.free_text("", "status", 140, min_length=0) == ""


@given(ANYTHING)
def test_free_text_is_refused_exactly_for_controls_and_surrogates(value: str) -> None:
    bad = any((char < " " and char not in "\t\n\r") or "\ud800" <= char <= "\udfff" for char in value)
    try:
        assert validation.free_text(value, "body", 80, 0) == value
        assert not bad
        value.encode()
    except InvalidArgument:
        assert bad


INVISIBLE = {
    "nul": "\0",
    "control": "\x1b",
    "line feed": "\n",
    "tab": "\t",
    "delete": "\x7f",
    "next line": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "arabic letter mark": "\u061c",
    "left-to-right mark": "\u200e",
    "right-to-left mark": "\u200f",
    "embedding": "\u202a",
    "override": "\u202e",
    "isolate": "\u2066",
    "pop isolate": "\u2069",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "tag": "\U000e0041",
    "surrogate": "\ud800",
    "hangul filler": "\u3164",
    "braille blank": "\u2800",
    "grapheme joiner": "\u034f",
    "variation selector 17": "\U000e0100",
}


@pytest.mark.parametrize("char", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_a_name_with_an_invisible_character_is_refused(char: str) -> None:
    for value in (char, "a" + char, char + "a", "a" + char + "b"):
        sentence = refusal_of(validation.name, value, "lane")
        assert sentence.startswith("lane contains an invisible character (U+")


@pytest.mark.parametrize("value", ["a", "API lane", "日本語", "ŝlosilo", "🏳️", "a/b#12", "x" * 64])
def test_a_name_may_contain_any_visible_character(value: str) -> None:
    assert validation.name(value, "lane") == value


@pytest.mark.parametrize("value", ["", " ", " a", "a ", "\u00a0a", "a\u3000", "x" * 65, "x" * 10_000, "\ufe0f"])
def test_an_empty_long_or_padded_name_is_refused(value: str) -> None:
    assert refusal_of(validation.name, value, "lane").startswith("lane ")


def test_a_name_is_normalised_before_it_is_counted() -> None:
    assert validation.name("e\u0301" * 64, "lane") == "é" * 64
    assert validation.name("\u212a", "lane") == "K"
    refusal_of(validation.name, "\u0958" * 33, "lane")  # NFC encodes each as two


@given(ANYTHING)
def test_an_accepted_name_is_accepted_again_unchanged(value: str) -> None:
    try:
        accepted = validation.name(value, "lane")
    except InvalidArgument:
        return
    assert validation.name(accepted, "lane") == accepted
    assert 1 <= len(accepted) <= 64
    assert accepted == accepted.strip() == unicodedata.normalize("NFC", value)
    assert not {unicodedata.category(char) for char in accepted} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_a_label_is_a_name_without_a_slash() -> None:
    assert validation.label("api agent", "participant_name") == "api agent"
    assert refusal_of(validation.label, "a/b", "participant_name").startswith("participant_name must not contain '/'")
    refusal_of(validation.label, "x" * 65, "participant_name")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("api", (None, "api")),
        ("ada/api", ("ada", "api")),
        ("a" * 64 + "/" + "ü" * 64, ("a" * 64, "ü" * 64)),
        ("admin/api", ("admin", "api")),  # a reserved handle is well formed; the caller looks it up
    ],
)
def test_a_participant_is_named_by_label_or_qualified_name(value: str, expected: tuple[str | None, str]) -> None:
    assert validation.qualified_name(value, "to_actor") == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/",
        "ada/",
        "/api",
        "ada/api/x",
        "Ada/api",
        "a--b/api",
        "ada /api",
        "a" * 65 + "/x",
        "ada/" + "x" * 65,
    ],
)
def test_a_malformed_qualified_name_is_refused(value: str) -> None:
    assert refusal_of(validation.qualified_name, value, "to_actor").startswith("to_actor ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Api", "api"),
        ("ＡＰＩ", "api"),
        ("straße", "STRASSE"),
        ("ﬁx", "FIX"),
        ("é", "E\u0301"),
        ("\u212a", "k"),
        ("❤\ufe0f", "❤"),
        ("ΣΑΣ", "σας"),
    ],
)
def test_labels_that_look_the_same_have_the_same_key(first: str, second: str) -> None:
    assert validation.label_key(first) == validation.label_key(second)


def test_labels_that_differ_have_different_keys() -> None:
    labels = ["api", "api-2", "api 2", "apí", "ap", "аpi"]  # the last begins with a Cyrillic letter
    assert len({validation.label_key(label) for label in labels}) == len(labels)


@given(st.text(max_size=20))
def test_a_key_is_idempotent_and_equal_for_each_normal_form(label: str) -> None:
    key = validation.label_key(label)
    assert validation.label_key(key) == key
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert validation.label_key(unicodedata.normalize(form, label)) == key


@pytest.mark.parametrize("value", ["a", "7", "ada", "ada-l", "a-1-b", "x" * 64])
def test_a_handle_is_lower_case_with_single_hyphens_inside(value: str) -> None:
    assert validation.handle(value, "handle") == value


@pytest.mark.parametrize("value", ["", "-a", "a-", "a--b", "Ada", "a_b", "a.b", "a\n", "ä", "٣", "x" * 65, "a/b"])
def test_a_malformed_handle_is_refused(value: str) -> None:
    assert refusal_of(validation.handle, value, "handle").startswith("handle must be ")


@pytest.mark.parametrize("value", sorted(validation.RESERVED_HANDLES))
def test_a_reserved_word_is_refused_as_a_handle(value: str) -> None:
    assert refusal_of(validation.handle, value, "handle") == "handle is a reserved word; choose another."


def test_the_names_that_the_service_uses_are_reserved() -> None:
    needed = {"admin", "operator", "api", "mcp", "login", "static", "healthz", "metrics", "llm-bus", "www"}
    assert needed <= validation.RESERVED_HANDLES


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("ada@example.org", "ada@example.org"),
        ("Ada.L+bus@EXAMPLE.Org", "Ada.L+bus@example.org"),
        ("owner@localhost", "owner@localhost"),
        ("owner@LocalHost", "owner@localhost"),
        ("llm-bus@localhost", "llm-bus@localhost"),
        ("o'neil@mail.example.co.uk", "o'neil@mail.example.co.uk"),
        # Internal domains, forms that some providers issue, and mailbox names whose case is kept.
        ("ada@corp.local", "ada@corp.local"),
        ("ada@team.test", "ada@team.test"),
        ("ada@my_host.example.org", "ada@my_host.example.org"),
        ("a..b.@example.org", "a..b.@example.org"),
        ("Postmaster@example.org", "Postmaster@example.org"),
        ("ada@bücher.example", "ada@bücher.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("a" * 242 + "@example.org", "a" * 242 + "@example.org"),
    ],
)
def test_an_email_address_is_returned_with_its_domain_in_lower_case(value: str, address: str) -> None:
    assert validation.email(value, "email") == address


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@example",
        "ada@@example.org",
        "a@b@example.org",
        "ada@.org",
        "ada@example.",
        "ada@example..org",
        "ada@-example.org",
        "ada@example-.org",
        "ada@exa mple.org",
        "a da@example.org",
        "ada@example.org\n",
        "ada\r\nBcc: x@example.org",
        "ada\0@example.org",
        "ada\u200b@example.org",
        "ada@example.org,eve",
        "<ada@example.org>",
        "ada@[127.0.0.1]",
        "a" * 243 + "@example.org",
        "\u0130" * 2 + "@" + "\u0130" * 240 + ".example.org",
    ],
)
def test_a_malformed_email_address_is_refused(value: str) -> None:
    assert refusal_of(validation.email, value, "email").startswith("email ")


@given(ANYTHING)
def test_an_accepted_email_address_is_accepted_again_unchanged(value: str) -> None:
    try:
        address = validation.email(value + "@Example.org", "email")
    except InvalidArgument:
        return
    assert validation.email(address, "email") == address
    assert address.count("@") == 1
    assert not re.search(r"\s", address)


@pytest.mark.parametrize("value", ["adr", "a", "0", "_", "-", "db_migration-2", "x" * 64])
def test_a_sequence_name_has_letters_digits_and_punctuation(value: str) -> None:
    assert validation.sequence_name(value) == value


@pytest.mark.parametrize("value", ["", "ADR", "a b", "a.b", "a\n", "ä", "x" * 65, "\0", "\ud800"])
def test_a_malformed_sequence_name_is_refused(value: str) -> None:
    assert refusal_of(validation.sequence_name, value).startswith("sequence must be ")
    assert refusal_of(validation.sequence_name, value, "name").startswith("name must be ")


def test_an_integer_outside_its_bounds_is_refused() -> None:
    assert validation.integer(0, "pad", 0, 12) == 0
    assert validation.integer(12, "pad", 0, 12) == 12
    for value, shown in ((-1, "-1"), (13, "13"), (2**53, "9007199254740992"), (-(10**5000), "a larger number")):
        assert refusal_of(validation.integer, value, "pad", 0, 12) == (
            f"pad must be a whole number from 0 to 12; {shown} was sent."
        )
