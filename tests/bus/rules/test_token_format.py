import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.rules import token_format

# A fixed token detects a change of the format, which would invalidate tokens in use.
TOKEN = "lbus_" + "0" * 43
CHECKSUM = "2MjyUI"


def test_a_generated_token_is_well_formed_and_unique() -> None:
    tokens = {token_format.generate_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(token_format.is_well_formed_token(token) for token in tokens)
    assert all(re.fullmatch(r"lbus_[0-9A-Za-z]{49}", token) for token in tokens)


def test_the_format_of_tokens_does_not_change() -> None:
    assert token_format.is_well_formed_token(TOKEN + CHECKSUM)
    assert not token_format.is_well_formed_token(TOKEN + CHECKSUM[::-1])


@pytest.mark.parametrize("number", [0, 1, 61, 62, 2**256 - 1])
def test_any_32_random_bytes_can_be_encoded(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_bytes", lambda length: number.to_bytes(length))
    token = token_format.generate_token()
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    decoded = 0
    for char in token[5:48]:
        decoded = decoded * 62 + digits.index(char)
    assert decoded == number
    assert token_format.is_well_formed_token(token)


@given(st.integers(0, 53), st.characters())
def test_any_single_changed_character_is_detected(at: int, char: str) -> None:
    token = TOKEN + CHECKSUM
    changed = token[:at] + char + token[at + 1 :]
    assert token_format.is_well_formed_token(changed) == (changed == token)


@given(st.integers(5, 52))
def test_two_swapped_adjacent_characters_are_detected(at: int) -> None:
    token = token_format.generate_token()
    changed = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
    assert token_format.is_well_formed_token(changed) == (changed == token)


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_any_text_can_be_checked_and_fingerprinted(text: str) -> None:
    assert not token_format.is_well_formed_token(text)
    assert not token_format.is_well_formed_token("lbus_" + text)
    assert len(token_format.fingerprint(text)) == 32


def test_digits_of_other_scripts_are_refused() -> None:
    assert not token_format.is_well_formed_token("lbus_" + "٣" * 49)


def test_a_fingerprint_is_the_sha_256_of_the_token() -> None:
    assert token_format.fingerprint("lbus_x") == hashlib.sha256(b"lbus_x").digest()


def test_a_hint_shows_only_the_last_four_characters() -> None:
    token = token_format.generate_token()
    assert token_format.display_hint(token) == "lbus_…" + token[-4:]


def test_tokens_of_connected_clients_have_forms_of_their_own() -> None:
    access, refresh = token_format.generate_access_token(), token_format.generate_refresh_token()
    assert re.fullmatch(r"lbusa_[0-9A-Za-z]{49}", access)
    assert re.fullmatch(r"lbusr_[0-9A-Za-z]{71}", refresh)
    assert token_format.is_well_formed_access_token(access)
    for token in (access, refresh):
        assert not token_format.is_well_formed_token(token)
    assert not token_format.is_well_formed_access_token(token_format.generate_token())
    assert not token_format.is_well_formed_access_token(access[:-1] + ("a" if access[-1] != "a" else "b"))
    assert token_format.display_hint(access) == "lbusa_…" + access[-4:]


def test_an_access_token_is_another_one_at_another_resource() -> None:
    access = token_format.generate_access_token()
    prints = {token_format.access_token_fingerprint(access, url) for url in ("https://a/mcp", "https://b/mcp")}
    assert len(prints | {token_format.fingerprint(access)}) == 3


def test_a_rotated_refresh_token_keeps_its_family() -> None:
    first = token_format.generate_refresh_token()
    family = token_format.refresh_token_family(first)
    second = token_format.derive_refresh_token(first, token_format.generate_salt())
    assert second != first
    assert token_format.refresh_token_family(second) == family
    assert token_format.refresh_token_family(token_format.generate_refresh_token()) != family
    assert token_format.refresh_token_family(first[:-1]) is None


def test_an_invite_code_is_unambiguous_and_url_safe() -> None:
    codes = {token_format.generate_invite_code() for _ in range(200)}
    assert len(codes) == 200
    # 26 of 32 symbols: 130 bits.
    assert all(re.fullmatch(r"inv_[0-9a-hjkmnp-tv-z]{26}", code) for code in codes)
