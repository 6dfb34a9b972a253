"""The dashboard in a real Chromium: it lives, fits, keeps to its policy, and signs people out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from origin.app import create_app
from origin.embedded_redis import embedded_redis
from origin.settings import Settings
from origin.stores.redis_facts import RedisFacts
from origin.stores.redis_sessions import RedisSessionStore
from origin.stores.redis_store import RedisStore
from origin.stores.redis_usage import RedisUsageStore
from shared.control_document import OPERATOR_TENANT
from shared.keys import key_ring, make_api_key
from tests.edge.local_edge import node_environment
from tests.support.chromium import chromium
from tests.support.control import control_store
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.serving import serving

CHROMIUM = chromium()
SECRET = "a secret of the tests, long enough"
KEYS = key_ring(SECRET)
CLIENT = make_api_key(KEYS, "acme", bytes(15))
ADMIN = make_api_key(KEYS, "acme", bytes([1] * 15))
OPERATOR = make_api_key(KEYS, OPERATOR_TENANT, bytes(15))
SCRIPT = Path(__file__).with_name("dashboard.mjs")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: `apt-get install chromium`, or name one by CHROMIUM"
)


@pytest.fixture(scope="module")
def origin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An origin on a real Redis. Of loopback Chromium trusts the name alone with `Secure`."""
    with ExitStack() as running:
        redis = running.enter_context(embedded_redis(tmp_path_factory.mktemp("redis")))
        app = create_app(
            Settings(secret=SecretStr(SECRET)),
            engine=ScriptedEngine(),
            store=RedisStore.from_url(redis),
            control_store=control_store(CLIENT, admins=[ADMIN, OPERATOR]),
            usage_store=RedisUsageStore.from_url(redis),
            session_store=RedisSessionStore.from_url(redis),
            redis_facts=RedisFacts.from_url(redis),
        )
        url = running.enter_context(serving(app, lifespan=True))
        yield url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def seen(origin_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one visit saw. `PICTURES` names a folder for pictures of it."""
    about = {
        "program": CHROMIUM,
        "url": origin_url,
        "admin": ADMIN,
        "operator": OPERATOR,
        "client": CLIENT,
        "model": MODEL,
        "pictures": os.environ.get("PICTURES"),
    }
    run = subprocess.run(
        ["node", str(SCRIPT), json.dumps(about)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        # Its profiles are made there, new.
        env=node_environment() | {"TMPDIR": str(tmp_path_factory.mktemp("chromium"))},
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def test_it_lives(seen: dict[str, Any]) -> None:
    """While traffic runs, a page that is open shows it, and says so to who cannot see it."""
    assert seen["before"] == "0"
    assert [("; hit" in status) for status in seen["statuses"]] == [False, *[True] * 4]
    assert seen["after"] == "5"
    assert seen["saved"] == "20"
    assert seen["chart"].startswith("M")
    assert "L1, exact 80.0 %" in seen["told"]
    assert seen["evictions"] == "0"
    assert ":" in seen["atCursor"]
    assert len(seen["health"]) == 6


def test_nothing_is_wrong(seen: dict[str, Any]) -> None:
    """Nothing in the console, nothing from elsewhere: no script or style broke the policy."""
    assert seen["said"] == []
    assert seen["elsewhere"] == []


def test_it_fits(seen: dict[str, Any]) -> None:
    """A desk and a phone: nobody scrolls sideways. Dark where the system is."""
    assert seen["wide"] == [1440, 1440]
    assert seen["phone"] == [390, 390]
    red, green, blue = map(int, seen["ground"].removeprefix("rgb(").rstrip(")").split(","))
    assert max(red, green, blue) < 64


@pytest.mark.parametrize("page", ["refusalFaint", "wideFaint", "phoneFaint"])
def test_every_text_can_be_read(seen: dict[str, Any], page: str) -> None:
    """Light and dark: contrast is 4.5 or more."""
    assert seen[page] == []


def test_the_session_is_the_browsers_secret(seen: dict[str, Any]) -> None:
    """No script sees it, and no key is in an address or kept."""
    assert seen["cookies"] == [
        {
            "name": "__Host-encore-session",
            "httpOnly": True,
            "secure": True,
            "sameSite": "Strict",
            "path": "/",
        }
    ]
    assert seen["cookiesOfScripts"] == ""
    assert seen["stored"] == 0
    assert seen["url"].endswith("/dashboard")
    assert not [address for address in seen["addresses"] if "sk-encore" in address]
    assert "role 'admin'" in seen["refusal"]


def test_a_purge_is_confirmed(seen: dict[str, Any]) -> None:
    """Left it changes nothing; everything is purged by typing whose."""
    assert "1 entry" in seen["asked"]
    assert "; hit" in seen["left"]
    assert "; hit" not in seen["purged"]
    assert (seen["everythingBefore"], seen["everythingAfter"]) == (True, False)


def test_a_tenants_admin_sees_its_own(seen: dict[str, Any]) -> None:
    """Nothing of the operator's is shown."""
    assert seen["tenant"] == "acme"
    assert seen["operatorsParts"] == []


def test_who_signs_out_is_out(seen: dict[str, Any]) -> None:
    """In every window: the script waited for the form in both."""
    assert seen["cookiesLeft"] == 0
