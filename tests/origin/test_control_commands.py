"""`encore keys`, `policy` and `purge`, on a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from origin.embedded_redis import embedded_redis
from origin.stores.redis_control import RedisControlStore
from shared.control_document import ControlDocument, decode
from shared.keys import key_id, key_ring, make_api_key, tag_digest
from tests.origin.engine.fake_upstream import fake_upstream
from tests.support.commands import encore
from tests.support.control import document_of, put_document

SECRET = "0123456789abcdef0123456789abcdef"


def api_key(number: int) -> str:
    """A key of acme by its number."""
    return make_api_key(key_ring(SECRET), "acme", number.to_bytes(15, "big"))


def control(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the control documents in `tmp_path`."""
    return encore(tmp_path, *arguments, ENCORE_SECRET=SECRET, **variables)


def created(tmp_path: Path, tenant: str, *options: str) -> str:
    """A new key: all there is on standard output."""
    result = control(tmp_path, "keys", "create", tenant, *options)
    assert result.returncode == 0, result.stderr
    (key,) = result.stdout.splitlines()
    return key


def listed(tmp_path: Path, tenant: str) -> list[dict[str, str]]:
    """What `keys list --json` says."""
    keys: list[dict[str, str]] = json.loads(
        control(tmp_path, "keys", "list", tenant, "--json").stdout
    )
    return keys


def policy(tmp_path: Path, *options: str) -> list[str]:
    """The lines that `policy` prints."""
    result = control(tmp_path, "policy", "acme", *options)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


async def put_in_redis(url: str, document: ControlDocument) -> None:
    """Put a document there."""
    store = RedisControlStore.from_url(url)
    await put_document(store, document)
    await store.close()


async def get_from_redis(url: str) -> ControlDocument:
    """The document of acme that is there."""
    store = RedisControlStore.from_url(url)
    text = await store.load("acme")
    await store.close()
    return decode(text or b"", "acme")


@pytest.fixture(scope="module")
def acme() -> ControlDocument:
    """The document of acme, without a key."""
    return document_of(api_key(0))


@pytest.fixture(scope="module")
def acme_url(tmp_path_factory: pytest.TempPathFactory, acme: ControlDocument) -> Iterator[str]:
    """A Redis that holds it, for the tests that leave it as it is."""
    with embedded_redis(tmp_path_factory.mktemp("acme")) as url:
        asyncio.run(put_in_redis(url, acme))
        yield url


def test_keys_are_listed_without_being_shown(tmp_path: Path) -> None:
    """By id, role, name and time; a name is text, never markup."""
    keys = [
        created(tmp_path, "acme", "--role", "admin", "--name", "[b]ops"),
        created(tmp_path, "acme"),
    ]
    rows = listed(tmp_path, "acme")
    assert [row["id"] for row in rows] == [key_id(key) for key in keys]
    assert [(row["role"], row["name"]) for row in rows] == [("admin", "[b]ops"), ("client", "")]
    table = control(tmp_path, "keys", "list", "acme").stdout
    for row in rows:
        assert row["id"][:12] in table
        assert row["created"] in table
        assert datetime.fromisoformat(row["created"]).tzinfo is not None
    assert "[b]ops" in table
    assert not any(key in table for key in keys)


def test_a_revoked_key_is_gone(tmp_path: Path) -> None:
    """Any unambiguous beginning of its id will do; the worst delay is told."""
    kept, revoked = (created(tmp_path, "acme") for _ in range(2))
    for id_, said in (("", "begins no id"), ("zz", "begins no id")):
        result = control(tmp_path, "keys", "revoke", "acme", id_)
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr
    result = control(tmp_path, "keys", "revoke", "acme", key_id(revoked)[:12])
    assert result.returncode == 0
    assert "refused by the origin now" in result.stdout
    assert "within 90 s" in result.stdout
    assert [row["id"] for row in listed(tmp_path, "acme")] == [key_id(kept)]
    again = control(tmp_path, "keys", "revoke", "acme", key_id(revoked))
    assert again.returncode == 2


def test_an_ambiguous_id_revokes_nothing(tmp_path: Path) -> None:
    """Sixteen ids have at most sixteen beginnings: of seventeen two share one."""
    with embedded_redis(tmp_path / "redis") as url:
        document = document_of(*(api_key(number) for number in range(17)))
        asyncio.run(put_in_redis(url, document))
        first = Counter(id_[0] for id_ in document.keys).most_common(1)[0]
        result = control(tmp_path, "keys", "revoke", "acme", first[0], REDIS_URL=url)
        assert result.returncode == 2
        assert f"begins {first[1]} ids" in result.stderr
        rows = json.loads(control(tmp_path, "keys", "list", "acme", "--json", REDIS_URL=url).stdout)
    assert len(rows) == 17


def test_policy_is_shown_and_changed(tmp_path: Path) -> None:
    """What an option does not name stays as it is."""
    created(tmp_path, "acme")
    assert policy(tmp_path) == [
        "normalisation = exact",
        "residency = edge",
        "encrypted = false",
        "rate_limited = true",
        "semantic = strict",
    ]
    changed = [
        "normalisation = property",
        "residency = origin-only",
        "encrypted = true",
        "rate_limited = false",
        "semantic = 0.005",
        "template hi@1 = say a=b {x:text}",
    ]
    options = ["--normalisation", "property", "--residency", "origin-only", "--encrypted"]
    options += ["--not-rate-limited", "--semantic", "0.005", "--template", "hi@1=say a=b {x:text}"]
    assert policy(tmp_path, *options) == changed
    assert policy(tmp_path) == changed
    assert policy(tmp_path, "--remove-template", "hi@1", "--not-encrypted") == [
        *changed[:2],
        "encrypted = false",
        *changed[3:5],
    ]


def test_lax_classes_are_listed_one_by_one(tmp_path: Path) -> None:
    """Added once and removed by name; other changes leave them."""
    created(tmp_path, "acme")
    options = ["--lax-class", "faq", "--lax-class", "docs", "--lax-class", "faq"]
    assert policy(tmp_path, *options)[-2:] == ["lax_class = faq", "lax_class = docs"]
    assert policy(tmp_path, "--encrypted")[-2:] == ["lax_class = faq", "lax_class = docs"]
    assert policy(tmp_path, "--remove-lax-class", "faq")[-1] == "lax_class = docs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["policy", "acme", "--normalisation", "x"], "normalisation: one of exact, text, property"),
        (["policy", "acme", "--residency", "moon"], "residency: one of edge, origin-only"),
        (["policy", "acme", "--template", "x=y"], "template 'x'"),
        (["policy", "acme", "--remove-template", "x@1"], "acme has no such template"),
        (["policy", "acme", "--lax-class", "Not one"], "lax class: 1 to 32 of a-z"),
        (["policy", "acme", "--remove-lax-class", "faq"], "acme does not list it"),
        (["keys", "create", "acme", "--role", "boss"], "role: one of client, admin"),
        (["keys", "create", "acme", "--name", "x" * 65], "name: at most 64 characters"),
        (["purge", "acme", "--key", "xyz"], "16 hexadecimal characters"),
        (["purge", "acme", "--tag", "a,b"], "tag: 1 to 64 of A-Z"),
        (["purge", "acme", "--tag", ""], "tag: 1 to 64 of A-Z"),
        (["purge", "acme", "--tag", "\udcff"], "tag: 1 to 64 of A-Z"),
        (["keys", "list", "nobody"], "`encore keys create TENANT`"),
        (["keys", "revoke", "nobody", "1"], "`encore keys create TENANT`"),
        (["policy", "nobody"], "`encore keys create TENANT`"),
        (["policy", "nobody", "--encrypted"], "`encore keys create TENANT`"),
        (["purge", "nobody", "--everything"], "`encore keys create TENANT`"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_line_and_status_2(
    acme: ControlDocument, acme_url: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    """The document stays what it was."""
    result = control(tmp_path, *arguments, REDIS_URL=acme_url)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert asyncio.run(get_from_redis(acme_url)) == acme


def test_purges_reach_redis_and_the_edge(tmp_path: Path) -> None:
    """By name, by everything, and of all tenants; the edge gets each document."""
    with fake_upstream() as edge, embedded_redis(tmp_path / "redis") as url:
        edge.say({})
        variables = {"REDIS_URL": url, "ENCORE_EDGE_URL": edge.url}
        control(tmp_path, "keys", "create", "acme", **variables)
        names = ["--tag", "news", "--model", "m", "--model", "n", "--key", "0123456789abcdef"]
        result = control(tmp_path, "purge", "acme", *names, **variables)
        assert result.returncode == 0
        assert "by the origin now, by the edge within 90 s" in result.stdout
        named = asyncio.run(get_from_redis(url)).cut_offs
        assert set(named.models) == {"m", "n"}
        assert set(named.tags) == {tag_digest(key_ring(SECRET), "acme", "news")}
        assert set(named.keys) == {"0123456789abcdef"}
        control(tmp_path, "purge", "acme", "--older-than", "1d", **variables)
        older = asyncio.run(get_from_redis(url))
        assert set(older.cut_offs.models) == {"m", "n"}  # the tenant itself is younger
        control(tmp_path, "purge", "--all-tenants", "--everything", **variables)
        purged = asyncio.run(get_from_redis(url))
        assert purged.cut_offs.all_ms > named.all_ms
        assert not purged.cut_offs.models
        assert [seen.path for seen in edge.seen] == ["/internal/control/acme"] * 4


def test_an_edge_that_cannot_be_told_is_said(tmp_path: Path) -> None:
    """The change is durable all the same: status 0, and a key is still alone on its line."""
    result = control(tmp_path, "keys", "create", "acme", ENCORE_EDGE_URL="http://127.0.0.1:1")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 1
    assert "ENCORE_EDGE_URL did not answer" in result.stderr
    assert len(listed(tmp_path, "acme")) == 1
    result = control(tmp_path, "purge", "acme", "--everything")
    assert "ENCORE_EDGE_URL is not set" in result.stdout
