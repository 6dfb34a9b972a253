"""`encore stats`, on a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from origin.embedded_redis import embedded_redis
from origin.stats_commands import short
from origin.stores.redis_usage import RedisUsageStore
from origin.usage import Recorder
from shared.counts import Counts, parse
from shared.envelope import TokenCounts
from tests.support.commands import encore

CHAT = "/v1/chat/completions"
SECRET = "0123456789abcdef0123456789abcdef"
NOTHING = "nobody: nothing counted yet; `encore keys list nobody` says if there is such a tenant.\n"
PRICES = '{"gpt-4o*": {"input": 1000000}}'


async def count(url: str) -> None:
    """What two tenants did at both tiers."""
    recorder = Recorder(RedisUsageStore.from_url(url))
    for tenant in ("acme", "other"):
        for _ in range(150):
            recorder.count(
                CHAT,
                tenant,
                "hit",
                latency_s=0,
                model="gpt-4o[b]",
                content_class="listing",
                strategy="template",
                saved=TokenCounts(prompt=3, completion=2),
                key="ab" * 32,
            )
    counts = Counts()
    counts.count("acme", "miss", latency_ms=3, model="gpt-4o[b]")
    await recorder.take_edge(parse(counts.take() or b"").tenants)
    recorder.count(CHAT, "acme", "miss", latency_s=0, model="free")
    await recorder.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis with usage in it."""
    with embedded_redis(tmp_path_factory.mktemp("usage")) as url:
        asyncio.run(count(url))
        yield url


def stats(tmp_path: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    variables = {"ENCORE_SECRET": SECRET, "REDIS_URL": url, "ENCORE_PRICES": PRICES}
    return encore(tmp_path, "stats", *arguments, **variables)


def test_a_tenants_usage_is_shown(tmp_path: Path, url: str) -> None:
    """As tables; names are text, never markup."""
    result = stats(tmp_path, url, "acme")
    assert (result.returncode, result.stderr) == (0, "")
    for said in (
        "150 of 151 requests",
        "99.3%",
        "gpt-4o[b]",
        "450.00",
        "listing",
        "template 150",
        "abababababababab",
        "TTL that covers 90 % of reuses",
        "149",
    ):
        assert said in result.stdout
    assert "other" not in result.stdout


def test_all_tenants_are_shown_together(tmp_path: Path, url: str) -> None:
    """Without a name; each has its line."""
    result = stats(tmp_path, url)
    assert result.returncode == 0
    assert "All tenants" in result.stdout
    assert "300 of 301 requests" in result.stdout
    assert {"acme", "other"} <= set(result.stdout.replace("│", " ").split())


def test_json_is_what_the_route_answers(tmp_path: Path, url: str) -> None:
    """For scripts."""
    told = json.loads(stats(tmp_path, url, "acme", "--json").stdout)
    assert told["tenant"] == "acme"
    assert told["origin"]["outcomes"]["hit"] == 150
    assert told["usd"] == {"saved": 450.0, "spent": 0.0, "models_without_price": ["free"]}
    assert [advice["observations"] for advice in told["ttl_advice"]] == [149]


def test_nothing_counted_is_said(tmp_path: Path, url: str) -> None:
    """In one line."""
    result = stats(tmp_path, url, "nobody")
    assert (result.returncode, result.stdout) == (0, NOTHING)


@pytest.mark.parametrize(
    ("tenant", "redis_url", "said"),
    [
        ("No Tenant", None, "TENANT: a tenant's name"),
        ("acme", "redis://127.0.0.1:1", "Redis does not answer at REDIS_URL"),
    ],
)
def test_refusals(tmp_path: Path, url: str, tenant: str, redis_url: str | None, said: str) -> None:
    """One line, with the fix."""
    result = stats(tmp_path, redis_url or url, tenant)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_tables_fit_into_80_columns(tmp_path: Path, url: str) -> None:
    """Nothing of a row is cut off."""
    variables = {"ENCORE_SECRET": SECRET, "REDIS_URL": url, "ENCORE_PRICES": PRICES}
    result = encore(tmp_path, "stats", COLUMNS="80", **variables)
    assert max(map(len, result.stdout.splitlines())) <= 80
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("│ all "))
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "all",
        "300",
        "99.7%",
        "1,500",
        "0",
        "900.0000",
        "0.0000",
    ]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100 k"),
        (999_999, "999 k"),
        (1_234_567, "1.23 M"),
        (12_345_678, "12.3 M"),
        (1_234_567_890, "1.23 G"),
        (123_456_789_012, "123 G"),
    ],
)
def test_large_counts_are_shortened(count: int, said: str) -> None:
    """To three digits, cut off rather than rounded up to a larger unit."""
    assert short(count) == said
