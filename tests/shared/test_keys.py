"""Keys: derivation by the RFC, keyed hashes, and API keys that cannot be made up."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ClientError
from shared.keys import (
    DEVELOPMENT_API_KEY,
    DEVELOPMENT_TENANT,
    KEY_ID_HEX_CHARACTERS,
    MIN_SECRET_CHARACTERS,
    Client,
    KeyRing,
    KeyRings,
    authenticate,
    cache_key,
    check_secret,
    check_tenant,
    edge_bearer,
    encryption_key,
    hkdf_expand,
    hkdf_extract,
    key_id,
    key_ring,
    key_rings,
    make_api_key,
    ring_of_edge,
    short_key,
    tag_digest,
    tenant_of,
    unknown_api_key,
)

SECRET = "a secret of forty characters for testing"
OTHER_SECRET = "another secret of forty characters, too."
RING = key_ring(SECRET)
OTHER_RING = key_ring(OTHER_SECRET)
FOREIGN_RING = key_ring("a secret that neither of the rings is of")
RINGS = KeyRings(current=RING)
ROTATING = KeyRings(current=RING, previous=OTHER_RING)
RANDOM = bytes(range(15))
TENANTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
ANY_TEXT = st.text(st.characters())  # lone surrogates too


@pytest.mark.parametrize(
    ("input_key", "salt", "info", "extracted", "first_block"),
    [
        (
            b"\x0b" * 22,
            bytes(range(0x0D)),
            bytes(range(0xF0, 0xFA)),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
        ),
        (
            b"\x0b" * 22,
            b"",
            b"",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
        ),
    ],
    ids=["A.1", "A.2", "A.3"],
)
def test_hkdf_gives_what_rfc_5869_gives(
    input_key: bytes, salt: bytes, info: bytes, extracted: str, first_block: str
) -> None:
    """The RFC's test cases with SHA-256; a longer output begins with the block that we take."""
    assert hkdf_extract(salt, input_key).hex() == extracted
    assert hkdf_expand(bytes.fromhex(extracted), info).hex() == first_block


def test_every_purpose_has_a_key_of_its_own() -> None:
    """No two derived keys are equal, and none of another secret's."""
    names = [field.name for field in fields(KeyRing)]
    derived = [getattr(ring, name) for ring in (RING, OTHER_RING) for name in names]
    assert len(set(derived)) == 2 * len(names)
    assert all(len(key) == 32 for key in derived if isinstance(key, bytes))


def test_a_ring_shows_no_key() -> None:
    """What a log or traceback prints of it is its public id."""
    assert repr(RING) == str(RING) == f"KeyRing(id={RING.id!r})"


def test_a_short_secret_is_refused_and_not_repeated() -> None:
    """The limit is exact."""
    secret = "s" * (MIN_SECRET_CHARACTERS - 1)
    with pytest.raises(ValueError, match="at least 32") as refusal:
        key_ring(secret)
    assert secret not in str(refusal.value)
    key_ring(secret + "s")


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("s" * (MIN_SECRET_CHARACTERS - 1), "at least 32"),
        (" " + "s" * MIN_SECRET_CHARACTERS, "white space"),
        ("s" * MIN_SECRET_CHARACTERS + "\n", "white space"),
        ("s" * MIN_SECRET_CHARACTERS + "\x00s", "unprintable"),
    ],
)
def test_a_secret_that_is_unfit_is_refused_and_not_repeated(secret: str, complaint: str) -> None:
    """A stray newline would make edge and origin disagree about every key."""
    with pytest.raises(ValueError, match=complaint) as refusal:
        check_secret(secret)
    assert "sss" not in str(refusal.value)


def test_a_secret_of_printable_text_is_accepted() -> None:
    """Inner spaces and letters of any alphabet are part of it."""
    check_secret("ein Geheimnis der Prüfung, lang genug")


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_cache_key_is_of_one_form_and_one_secret(left: bytes, right: bytes) -> None:
    """64 hexadecimal characters, equal only for equal forms under one secret."""
    key = cache_key(RING, left)
    assert len(key) == 64
    assert bytes.fromhex(key).hex() == key
    assert (cache_key(RING, right) == key) == (left == right)
    assert cache_key(OTHER_RING, left) != key
    assert key.startswith(short_key(key))


@given(TENANTS, st.text(), TENANTS, st.text())
def test_a_tag_digest_is_of_one_tenant_and_one_tag(
    tenant: str, tag: str, other_tenant: str, other_tag: str
) -> None:
    """12 hexadecimal characters; where tenant ends and tag begins cannot be moved."""
    digest = tag_digest(RING, tenant, tag)
    assert len(digest) == 12
    assert bytes.fromhex(digest).hex() == digest
    equal = (tenant, tag) == (other_tenant, other_tag)
    assert (tag_digest(RING, other_tenant, other_tag) == digest) == equal
    assert tag_digest(OTHER_RING, tenant, tag) != digest


@given(TENANTS, st.binary(min_size=15, max_size=15))
def test_an_api_key_leads_to_its_tenant(tenant: str, random: bytes) -> None:
    """Whatever the random bytes, and whatever hyphens the name has; under its secret only."""
    key = make_api_key(RING, tenant, random)
    assert key.startswith(f"sk-encore-{tenant}-")
    assert tenant_of(RING, key, development=False) == tenant
    assert tenant_of(OTHER_RING, key, development=True) is None


@given(TENANTS, st.data())
def test_an_api_key_changed_anywhere_is_nobodys(tenant: str, data: st.DataObject) -> None:
    """Every character counts, and nothing may be added or left out."""
    key = make_api_key(RING, tenant, RANDOM)
    at = data.draw(st.integers(0, len(key) - 1))
    new = data.draw(st.text(st.characters(), max_size=2).filter(lambda text: text != key[at]))
    assert tenant_of(RING, key[:at] + new + key[at + 1 :], development=True) is None


def checked(body: str) -> str:
    """`body` with the check it would have, had we made it."""
    from shared.keys import _api_key_check  # noqa: PLC0415 - for forging only

    return f"{body}-{_api_key_check(RING, body)}"


@pytest.mark.parametrize(
    "body",
    [
        "sk-encore--aaaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore-aaaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore-acme-",
        "sk-encore-acme-aaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore-Acme-aaaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore-ac_me-aaaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore--acme-aaaaaaaaaaaaaaaaaaaaaaaa",
        "sk-encore-acmé-aaaaaaaaaaaaaaaaaaaaaaaa",
        "SK-encore-acme-aaaaaaaaaaaaaaaaaaaaaaaa",
        " sk-encore-acme-aaaaaaaaaaaaaaaaaaaaaaaa",
        f"sk-encore-{'a' * 33}-aaaaaaaaaaaaaaaaaaaaaaaa",
    ],
)
def test_a_malformed_key_is_nobodys_even_with_a_right_check(body: str) -> None:
    """The tenant comes from the key, so the key's form is checked too."""
    assert tenant_of(RING, checked(body), development=False) is None


@example("\ud83d")
@example("ключ")
@example(DEVELOPMENT_API_KEY)
@given(ANY_TEXT)
def test_any_text_may_be_presented(text: str) -> None:
    """Comparing never raises, beyond ASCII or with half a surrogate pair."""
    assert ring_of_edge(RINGS, text) is None
    mine = DEVELOPMENT_TENANT if text == DEVELOPMENT_API_KEY else None
    assert tenant_of(RING, text, development=True) == mine
    assert tenant_of(RING, f"sk-encore-{text}", development=False) is None


def test_the_edge_is_believed_by_its_bearer_only() -> None:
    """Not by another deployment's, not by a part of it."""
    assert ring_of_edge(RINGS, edge_bearer(RING)) is RING
    assert ring_of_edge(RINGS, edge_bearer(OTHER_RING)) is None
    assert ring_of_edge(RINGS, edge_bearer(RING)[:-1]) is None
    assert ring_of_edge(RINGS, "") is None


def test_both_edges_are_believed_while_the_secret_is_replaced() -> None:
    """Each by its own ring, so that an answer can be in the keys of the edge that asked."""
    assert ring_of_edge(ROTATING, edge_bearer(RING)) is RING
    assert ring_of_edge(ROTATING, edge_bearer(OTHER_RING)) is OTHER_RING
    assert ring_of_edge(ROTATING, edge_bearer(FOREIGN_RING)) is None
    assert ring_of_edge(ROTATING, "") is None


def test_the_development_key_is_for_development() -> None:
    """Outside it is like any other unknown key."""
    assert tenant_of(RING, DEVELOPMENT_API_KEY, development=True) == DEVELOPMENT_TENANT
    assert tenant_of(RING, DEVELOPMENT_API_KEY, development=False) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " Bearer", "Bearer  "])
def test_a_bearer_is_read_as_rfc_9110_has_it(scheme: str) -> None:
    """The scheme in any case, spaces around the key."""
    header = f"{scheme} {make_api_key(RING, 'acme', RANDOM)} "
    assert authenticate(RINGS, header, development=False).tenant == "acme"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer  ", "missing_api_key"),
        ("Basic c2stZW5jb3Jl", "missing_api_key"),
        (make_api_key(RING, "acme", RANDOM), "missing_api_key"),
        ("Bearer sk-encore-acme-guess", "invalid_api_key"),
        ("Bearer sk-encore-dev", "invalid_api_key"),
        ("Bearer ключ", "invalid_api_key"),
    ],
)
def test_without_a_good_key_nobody_comes_in(header: str | None, code: str) -> None:
    """401 in OpenAI's words, and what was presented is not repeated."""
    with pytest.raises(ClientError) as refusal:
        authenticate(RINGS, header, development=False)
    assert (refusal.value.status, refusal.value.code) == (401, code)
    assert "guess" not in refusal.value.message


@pytest.mark.parametrize("tenant", ["a", "0", "acme", "a-b", "a--b", "a" * 32])
def test_a_legal_tenant_is_itself(tenant: str) -> None:
    """Lower-case letters, digits and inner hyphens."""
    assert check_tenant(tenant) == tenant


@pytest.mark.parametrize("tenant", ["", "-a", "a-", "A", "a b", "a_b", "é", "a\n", "a" * 33, "٣"])
def test_an_illegal_tenant_gets_no_key(tenant: str) -> None:
    """Nor is it a tenant anywhere else."""
    with pytest.raises(ValueError, match="tenant's name"):
        make_api_key(RING, tenant, RANDOM)


@pytest.mark.parametrize("length", [0, 14, 16])
def test_a_key_takes_fifteen_random_bytes(length: int) -> None:
    """Fewer would be guessable, other numbers would pad."""
    with pytest.raises(ValueError, match="15 bytes"):
        make_api_key(RING, "acme", bytes(length))


def test_the_random_part_is_the_bytes_given() -> None:
    """In base32, so that a key never needs escaping."""
    random = make_api_key(RING, "acme", RANDOM).split("-")[3]
    assert base64.b32decode(random.upper()) == RANDOM


def test_the_rings_of_a_deployment_are_those_of_its_secrets() -> None:
    """The current one comes first: what is made is made with it."""
    assert key_rings(SECRET) == KeyRings(current=RING)
    assert list(key_rings(SECRET)) == [RING]
    assert list(key_rings(SECRET, OTHER_SECRET)) == [RING, OTHER_RING]


@pytest.mark.parametrize("previous", [SECRET, "", "short", OTHER_SECRET + "\n"])
def test_an_unfit_previous_secret_is_refused_and_not_repeated(previous: str) -> None:
    """The current one again, too: its replacement would seem to be under way and is not."""
    with pytest.raises(ValueError, match=r"previous|at least 32|white space") as refusal:
        key_rings(SECRET, previous)
    assert SECRET not in str(refusal.value)
    assert OTHER_SECRET not in str(refusal.value)


def test_a_ring_is_found_by_its_id() -> None:
    """One whose secret does not count any more is not."""
    assert ROTATING.by_id(RING.id) is RING
    assert ROTATING.by_id(OTHER_RING.id) is OTHER_RING
    assert RINGS.by_id(OTHER_RING.id) is None
    assert ROTATING.by_id("") is None


@pytest.mark.parametrize("rings", [RINGS, ROTATING])
@pytest.mark.parametrize("ring", [RING, OTHER_RING, FOREIGN_RING], ids=["new", "old", "neither"])
@pytest.mark.parametrize("development", [False, True])
def test_an_api_key_counts_while_its_secret_does(
    rings: KeyRings, ring: KeyRing, development: bool
) -> None:
    """Made under the current secret or the previous one; of neither it is unknown."""
    api_key = make_api_key(ring, "acme", RANDOM)
    if ring in list(rings):
        client = authenticate(rings, f"Bearer {api_key}", development=development)
        assert client == Client(tenant="acme", key_id=key_id(api_key))
        return
    with pytest.raises(ClientError) as refusal:
        authenticate(rings, f"Bearer {api_key}", development=development)
    assert (refusal.value.status, refusal.value.code) == (401, "invalid_api_key")


def test_a_revoked_key_gets_what_an_unknown_one_gets() -> None:
    """So that nobody learns from the answer which keys there have been."""
    with pytest.raises(ClientError) as refusal:
        authenticate(RINGS, "Bearer nobody", development=False)
    unknown = unknown_api_key()
    assert (unknown.status, unknown.code) == (401, "invalid_api_key")
    assert str(refusal.value) == str(unknown)
    assert refusal.value.code == unknown.code


@pytest.mark.parametrize("rings", [RINGS, ROTATING])
def test_the_development_key_has_no_id(rings: KeyRings) -> None:
    """No control document lists it."""
    client = authenticate(rings, f"Bearer {DEVELOPMENT_API_KEY}", development=True)
    assert client == Client(tenant=DEVELOPMENT_TENANT, key_id=None)


@example("\ud83d", "")
@given(ANY_TEXT, ANY_TEXT)
def test_a_key_id_is_of_one_key(left: str, right: str) -> None:
    """32 hexadecimal characters; any text has one."""
    assert len(key_id(left)) == KEY_ID_HEX_CHARACTERS
    assert bytes.fromhex(key_id(left)).hex() == key_id(left)
    assert (key_id(left) == key_id(right)) == (left == right)


def test_a_key_id_is_the_start_of_a_sha_256() -> None:
    """Anybody can compute it who has the key, and none without."""
    assert hashlib.sha256(b"sk-encore-dev").hexdigest().startswith(key_id(DEVELOPMENT_API_KEY))


@given(TENANTS, TENANTS)
def test_an_encryption_key_is_of_one_tenant_and_one_secret(left: str, right: str) -> None:
    """32 bytes for AES-256, and no key that something else is done with."""
    key = encryption_key(RING, left)
    assert len(key) == 32
    assert (encryption_key(RING, right) == key) == (left == right)
    assert key != encryption_key(OTHER_RING, left)
    assert key not in {getattr(RING, field.name) for field in fields(KeyRing)}
