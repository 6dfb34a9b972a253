"""Control documents at the origin: who is believed, what is acknowledged, what is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis

from origin.audit import ORIGIN
from origin.control import MEMO_S, Control
from origin.embedded_redis import embedded_redis
from origin.metrics import CONTROL_ERRORS
from origin.purge_requests import purge_of
from origin.settings import Settings
from origin.stores.contract import StoreError
from origin.stores.memory_control import MemoryControlStore
from origin.stores.redis_control import RedisControlStore
from shared.control_document import (
    ApiKey,
    ControlDocument,
    ControlError,
    Purge,
    decode,
    encode,
    new_document,
    revised,
)
from shared.errors import ClientError, InternalError
from shared.keys import key_rings, tag_digest
from tests.support.instruments import value_of

LIFE_MS = 1000
EVERYTHING = Purge(everything=True)


class FaultyStore(MemoryControlStore):
    """A memory store that can be unreachable, slow or overtaken, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.loaded = 0
        self.before_replace: Callable[[], None] | None = None

    def hold(self, document: ControlDocument) -> None:
        """Put a document in, whatever was there."""
        self._documents[document.tenant] = (document.revision, encode(document))

    def lose(self) -> None:
        """Forget everything."""
        self._documents.clear()

    async def _ask(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.down:
            raise StoreError("down")

    async def now_ms(self) -> int:
        """See ControlStore.now_ms."""
        await self._ask()
        return await super().now_ms()

    async def revision(self, tenant: str) -> int | None:
        """See ControlStore.revision."""
        await self._ask()
        return await super().revision(tenant)

    async def load(self, tenant: str) -> bytes | None:
        """See ControlStore.load."""
        await self._ask()
        self.loaded += 1
        return await super().load(tenant)

    async def replace(
        self,
        tenant: str,
        document: bytes,
        revision: int,
        *,
        expected: int | None,
        record: bytes | None = None,
    ) -> bool:
        """See ControlStore.replace."""
        await self._ask()
        if self.before_replace is not None:
            self.before_replace()
        return await super().replace(tenant, document, revision, expected=expected, record=record)

    async def tenants(self) -> frozenset[str]:
        """See ControlStore.tenants."""
        await self._ask()
        return await super().tenants()


def document(revision: int = 10) -> ControlDocument:
    """A document of acme."""
    return replace(new_document("acme", 1), revision=revision, longest_life_ms=LIFE_MS)


def api_key(number: int) -> ApiKey:
    """An API key by its number."""
    return ApiKey(id=f"{number:032x}", role="client", name="", created_ms=1)


def adding(key: ApiKey) -> Callable[[ControlDocument, int], ControlDocument]:
    """The change that lists a key."""
    return lambda document, now_ms: revised(document, now_ms, keys={**document.keys, key.id: key})


@pytest.fixture
def store() -> FaultyStore:
    """A store with a document of acme."""
    store = FaultyStore()
    store.hold(document())
    return store


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """By what memos age."""
    return Clock()


@pytest.fixture
async def control(store: FaultyStore, clock: Clock) -> AsyncIterator[Control]:
    """Control over it."""
    control = Control(store, longest_life_ms=LIFE_MS, clock_s=clock)
    yield control
    store.gate.set()
    await control.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memo, so no waiting for one to end."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis."""
    with embedded_redis(tmp_path_factory.mktemp("control")) as url:
        yield url


async def test_a_document_is_remembered_for_a_while(
    store: FaultyStore, control: Control, clock: Clock
) -> None:
    """Then its revision alone is asked for, and the document only where that has changed."""
    first = await control.document("acme")
    asked = store.asked
    clock.now_s += 0.9 * MEMO_S
    assert await control.document("acme") is first
    assert store.asked == asked
    clock.now_s += 0.2 * MEMO_S
    assert await control.document("acme") is first
    assert (store.asked, store.loaded) == (asked + 1, 1)
    store.hold(document(11))
    clock.now_s += MEMO_S
    assert await control.document("acme") == document(11)


async def test_those_who_ask_at_once_share_one_look(store: FaultyStore, control: Control) -> None:
    """Also when the first of them leaves."""
    store.gate.clear()
    asking = [asyncio.create_task(control.document("acme")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    store.gate.set()
    _, *found = await asyncio.gather(*asking, return_exceptions=True)
    assert found == [document()] * 4
    assert store.loaded == 1


async def test_a_look_that_takes_long_is_not_joined(
    store: FaultyStore, control: Control, clock: Clock
) -> None:
    """Who asks `MEMO_S` after it began may know of a change that it has missed."""
    store.gate.clear()
    early = asyncio.create_task(control.document("acme"))
    await _turns()
    clock.now_s += MEMO_S
    late = asyncio.create_task(control.document("acme"))
    await _turns()
    assert store.asked == 2
    store.gate.set()
    assert [await early, await late] == [document(), document()]


async def test_an_unknown_tenant_has_no_document(store: FaultyStore, control: Control) -> None:
    """That is not remembered: its first key works at once."""
    assert await control.document("other") is None
    store.hold(replace(document(), tenant="other"))
    assert await control.document("other") is not None


async def test_an_outage_keeps_what_is_known(
    store: FaultyStore, control: Control, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is used on until the store answers again, and logged once."""
    await control.document("acme")
    store.down = True
    counted = value_of(CONTROL_ERRORS)
    for _ in range(3):
        clock.now_s += MEMO_S
        assert await control.document("acme") == document()
    assert len(caplog.records) == 1
    assert value_of(CONTROL_ERRORS) == counted + 3
    store.down = False
    store.hold(document(11))
    clock.now_s += MEMO_S
    assert await control.document("acme") == document(11)


async def test_a_look_that_fails_late_keeps_nothing_for_longer(
    store: FaultyStore, control: Control, clock: Clock
) -> None:
    """The store may have been there again meanwhile, for one who changed the document."""
    await control.document("acme")
    clock.now_s += MEMO_S
    store.gate.clear()
    asking = asyncio.create_task(control.document("acme"))
    await _turns()
    clock.now_s += MEMO_S
    store.down = True
    store.gate.set()
    assert await asking == document()
    store.down = False
    store.hold(document(11))
    assert await control.document("acme") == document(11)


async def test_a_slow_change_of_nothing_keeps_nothing_for_longer(
    store: FaultyStore, control: Control, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document was read before the store's time was asked for, which took long."""
    cut_off_ms = store.cut_off_ms

    async def slow() -> int:
        clock.now_s += MEMO_S
        store.hold(document(11))
        return await cut_off_ms()

    monkeypatch.setattr(store, "cut_off_ms", slow)
    assert not await control.apply("acme", EVERYTHING, ORIGIN, heard_ms=1)
    assert await control.document("acme") == document(11)


async def test_an_outage_without_a_memo_is_a_503(store: FaultyStore, control: Control) -> None:
    """Neither "no such tenant" nor anybody's document."""
    store.down = True
    with pytest.raises(InternalError) as refused:
        await control.document("acme")
    error = refused.value
    assert (error.status, error.code, error.retry_after_s) == (503, "control_unavailable", 1)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"v":2}', encode(replace(document(), tenant="x"))])
async def test_what_cannot_be_read_is_refused_and_kept(
    store: FaultyStore, control: Control, clock: Clock, text: bytes
) -> None:
    """With or without a memo, to readers and to writers, who must not overwrite it."""
    for known in (False, True):
        if known:
            store.hold(document())
            await control.document("acme")
            clock.now_s += MEMO_S
        store._documents["acme"] = (11, text)
        for attempt in (
            control.document("acme"),
            control.change("acme", revised),
            control.change("acme", revised, create=True),
            control.purge_everywhere(EVERYTHING),
        ):
            with pytest.raises(InternalError) as refused:
                await attempt
            assert (refused.value.status, refused.value.code) == (503, "control_unreadable")
        assert store._documents["acme"] == (11, text)


@pytest.mark.usefixtures("quick")
async def test_a_change_is_durable_and_known_here(store: FaultyStore, control: Control) -> None:
    """What is returned is what is in the store, by the store's clock."""
    store.clock_ms = lambda: 5000
    changed = await control.change("acme", adding(api_key(1)))
    assert changed.document.keys == {api_key(1).id: api_key(1)}
    assert (changed.document.revision, changed.at_ms) == (5000, 5000)
    assert changed.edge == "not configured"
    assert decode(await store.load("acme") or b"", "acme") == changed.document
    assert await control.document("acme") == changed.document


async def test_an_acknowledged_change_holds_at_every_replica(store: FaultyStore) -> None:
    """A replica that looked just before has let go of its memo when the change returns."""
    here, there = Control(store, longest_life_ms=0), Control(store, longest_life_ms=0)
    assert await there.document("acme") == document()
    changed = await here.purge("acme", EVERYTHING)
    assert await there.document("acme") == changed.document
    assert await here.document("acme") == changed.document


@pytest.mark.usefixtures("quick")
async def test_who_keeps_something_is_told_of_a_purge_of_everything(store: FaultyStore) -> None:
    """In each process, once it knows; of no other change."""
    told: list[tuple[str, str]] = []
    here = Control(store, longest_life_ms=0, purged=lambda tenant: told.append(("here", tenant)))
    there = Control(store, longest_life_ms=0, purged=lambda tenant: told.append(("there", tenant)))
    for control in (here, there):
        await control.document("acme")
    await here.purge("acme", Purge(models=("m",)))
    await there.refresh("acme")
    assert told == []
    await here.purge("acme", EVERYTHING)
    await there.refresh("acme")
    await there.refresh("acme")
    assert told == [("here", "acme"), ("there", "acme")]


async def test_twenty_changes_at_once_all_survive(redis_url: str) -> None:
    """In Redis, from two processes' worth of control."""
    stores = [RedisControlStore.from_url(redis_url, prefix="twenty", timeout_s=5) for _ in range(2)]
    controls = [Control(store, longest_life_ms=LIFE_MS) for store in stores]
    changes = await asyncio.gather(
        *(
            controls[number % 2].change("acme", adding(api_key(number)), create=True)
            for number in range(20)
        )
    )
    assert len({changed.document.revision for changed in changes}) == 20
    found = await controls[0].document("acme")
    assert found is not None
    assert set(found.keys) == {api_key(number).id for number in range(20)}
    assert found.revision == max(changed.document.revision for changed in changes)
    for control in controls:
        await control.close()


@pytest.mark.usefixtures("quick")
async def test_a_change_that_never_gets_its_turn_is_refused(
    store: FaultyStore, control: Control
) -> None:
    """After many attempts, each overtaken by another: not acknowledged, not made."""
    revision = 10

    def overtake() -> None:
        nonlocal revision
        revision += 1
        store.hold(document(revision))

    store.before_replace = overtake
    with pytest.raises(InternalError) as refused:
        await control.change("acme", adding(api_key(1)))
    assert refused.value.code == "control_unavailable"
    assert decode(await store.load("acme") or b"", "acme") == document(revision)


@pytest.mark.usefixtures("quick")
async def test_a_change_in_an_outage_is_a_503(store: FaultyStore, control: Control) -> None:
    """Never an acknowledgement, whatever is remembered."""
    await control.document("acme")
    store.down = True
    for attempt in (control.purge("acme", EVERYTHING), control.purge_everywhere(EVERYTHING)):
        with pytest.raises(InternalError) as refused:
            await attempt
        assert (refused.value.status, refused.value.code) == (503, "control_unavailable")


@pytest.mark.usefixtures("quick")
async def test_a_refused_change_leaves_everything(store: FaultyStore, control: Control) -> None:
    """Its reason reaches the caller."""

    def refuse(_document: ControlDocument, _now_ms: int) -> ControlDocument:
        raise ControlError("no")

    with pytest.raises(ControlError, match="no"):
        await control.change("acme", refuse)
    assert await control.document("acme") == document()
    assert await store.revision("acme") == 10


@pytest.mark.usefixtures("quick")
async def test_only_who_creates_makes_a_document(store: FaultyStore, control: Control) -> None:
    """A purge of a tenant that is none is a 404."""
    with pytest.raises(ClientError) as refused:
        await control.purge("other", EVERYTHING)
    assert (refused.value.status, refused.value.code) == (404, "no_tenant")
    assert await store.tenants() == {"acme"}
    await control.change("other", adding(api_key(1)), create=True)
    assert await store.tenants() == {"acme", "other"}


@pytest.mark.usefixtures("quick")
async def test_what_a_lost_document_had_purged_stays_dead(redis_url: str) -> None:
    """Redis flushed, a key created: all before that is cut off, and the revision is later."""
    store = RedisControlStore.from_url(redis_url, prefix="lost", timeout_s=5)
    control = Control(store, longest_life_ms=LIFE_MS)
    await control.change("acme", adding(api_key(1)), create=True)
    before = await control.purge("acme", Purge(models=("m",)))
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    assert await control.document("acme") is None
    lost_ms = await control.now_ms()
    after = await control.change("acme", adding(api_key(2)), create=True)
    assert after.document.cut_offs.all_ms >= lost_ms
    assert after.document.revision > before.document.revision
    assert set(after.document.keys) == {api_key(2).id}
    await control.close()


async def test_a_store_that_went_back_in_time_gets_the_later_document(
    store: FaultyStore, control: Control, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failover to a replica, say. What else it lost nobody knows, so everything is cut off."""
    store.hold(replace(document(20), keys={api_key(2).id: api_key(2)}))
    await control.document("acme")
    store.hold(replace(document(10), keys={api_key(1).id: api_key(1)}))
    clock.now_s += MEMO_S
    store.clock_ms = lambda: 5000
    ruling = await control.document("acme")
    assert ruling is not None
    assert set(ruling.keys) == {api_key(2).id}
    assert (ruling.revision, ruling.cut_offs.all_ms) == (5000, 5000)
    assert decode(await store.load("acme") or b"", "acme") == ruling
    assert "lost a later one" in caplog.text


async def test_a_slow_look_does_not_undo_a_change(
    store: FaultyStore, control: Control, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it read before the change is no longer what rules."""
    monkeypatch.setattr("origin.control.asyncio.sleep", _no_sleep)
    read = await store.load("acme")

    async def read_before(_tenant: str) -> bytes | None:
        await gate.wait()
        return read

    gate = asyncio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(store, "load", read_before)
        looking = asyncio.create_task(control.document("acme"))
        await _turns()
    changed = await control.change("acme", adding(api_key(1)))
    gate.set()
    await looking
    assert await control.document("acme") == changed.document
    assert clock.now_s == 100.0


async def test_longest_life_is_covered_before_a_document_is_handed_out(
    store: FaultyStore, clock: Clock
) -> None:
    """It only grows: entries that were made under a longer one are still there."""
    control = Control(store, longest_life_ms=LIFE_MS + 1, clock_s=clock)
    found = await control.document("acme")
    assert found is not None
    assert found.longest_life_ms == LIFE_MS + 1
    assert decode(await store.load("acme") or b"", "acme") == found
    assert found.cut_offs == document().cut_offs
    shorter = Control(store, longest_life_ms=1, clock_s=clock)
    assert await shorter.document("acme") == found


async def test_without_its_longest_life_no_document_is_handed_out(store: FaultyStore) -> None:
    """The store fails between the look and the change."""
    control = Control(store, longest_life_ms=LIFE_MS + 1)

    def fail() -> None:
        raise StoreError("down")

    store.before_replace = fail
    with pytest.raises(InternalError) as refused:
        await control.document("acme")
    assert refused.value.code == "control_unavailable"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("development", [False, True])
async def test_the_development_tenant_exists_on_demand(
    store: FaultyStore, development: bool
) -> None:
    """In development mode, and no other tenant does."""
    control = Control(store, longest_life_ms=LIFE_MS, development=development)
    found = await asyncio.gather(*(control.document("dev") for _ in range(3)))
    assert [one is not None for one in found] == [development] * 3
    assert await control.document("other") is None


VERSIONS = ("0123456789ab", "ba9876543210")


async def test_every_document_says_what_is_matched_by(store: FaultyStore) -> None:
    """Of tenants without traffic too, until the next process goes by something else."""
    store.hold(replace(document(), tenant="idle"))
    first, second = (
        Control(store, longest_life_ms=LIFE_MS, calibration=version) for version in VERSIONS
    )
    for control, version in zip((first, second), VERSIONS, strict=True):
        await control.calibrate()
        texts = [await store.load(tenant) for tenant in ("acme", "idle")]
        found = [
            decode(text or b"", name) for text, name in zip(texts, ("acme", "idle"), strict=True)
        ]
        assert [one.calibration for one in found] == [version] * 2
    await first.refresh_all()
    ruling = await first.document("acme")
    assert ruling is not None
    assert ruling.calibration == VERSIONS[1]


async def test_a_document_that_is_changed_before_it_is_read_says_it_too(
    store: FaultyStore,
) -> None:
    """Purges that have waited come first."""
    control = Control(store, longest_life_ms=LIFE_MS, calibration=VERSIONS[0])
    await control.apply("acme", EVERYTHING, ORIGIN)
    await control.calibrate()
    ruling = await control.document("acme")
    assert ruling is not None
    assert ruling.calibration == VERSIONS[0]


@pytest.mark.usefixtures("quick")
async def test_the_development_tenants_document_says_it_at_once(store: FaultyStore) -> None:
    """Nothing else would ever write it."""
    control = Control(store, longest_life_ms=LIFE_MS, calibration=VERSIONS[0], development=True)
    ruling = await control.document("dev")
    assert ruling is not None
    assert ruling.calibration == VERSIONS[0]


@pytest.mark.usefixtures("quick")
async def test_everything_of_all_tenants(store: FaultyStore, control: Control) -> None:
    """Each gets its cut-off, one that is listed without a document is no failure."""
    store.hold(replace(document(), tenant="other"))

    async def tenants() -> frozenset[str]:
        return frozenset({"acme", "other", "listed-only"})

    store.tenants = tenants  # type: ignore[method-assign]
    changes = await control.purge_everywhere(EVERYTHING)
    assert [changed.document.tenant for changed in changes] == ["acme", "other"]
    for changed in changes:
        assert changed.document.cut_offs.all_ms == changed.at_ms
        assert await control.document(changed.document.tenant) == changed.document


@pytest.mark.usefixtures("quick")
async def test_one_tenants_failure_spares_no_other(store: FaultyStore, control: Control) -> None:
    """All that can be purged is; the failure is told all the same."""
    store._documents["aaa"] = (1, b"damaged")
    with pytest.raises(InternalError, match="aaa"):
        await control.purge_everywhere(EVERYTHING)
    ruling = await control.document("acme")
    assert ruling is not None
    assert ruling.cut_offs.all_ms > document().cut_offs.all_ms


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["purge", "model", "key", "flush", "outage", "look"]),
            st.integers(min_value=0, max_value=1),
            st.integers(min_value=1, max_value=3),
        ),
        max_size=30,
    )
)
async def test_what_was_purged_never_comes_back(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int, int]]
) -> None:
    """Whatever two processes do and the store loses: an acknowledged cut-off holds for both."""
    monkeypatch.setattr("origin.control.MEMO_S", 0)
    now_ms = 1000
    store = FaultyStore()
    store.clock_ms = lambda: now_ms
    controls = [Control(store, longest_life_ms=LIFE_MS) for _ in range(2)]
    dead_ms, dead_model_ms = -1, -1
    for step, who, passing_ms in steps:
        now_ms += passing_ms
        control = controls[who]
        store.down = step == "outage"
        try:
            if step == "purge":
                dead_ms = (await control.purge("acme", EVERYTHING)).at_ms
            elif step == "model":
                dead_model_ms = (await control.purge("acme", Purge(models=("m",)))).at_ms
            elif step == "key":
                await control.change("acme", adding(api_key(now_ms)), create=True)
            elif step == "flush":
                store.lose()
        except (ClientError, InternalError):
            pass
        if step == "outage":
            continue
        for each in controls:
            ruling = await each.document("acme")
            if ruling is not None:
                cut_offs = ruling.cut_offs
                assert cut_offs.all_ms >= dead_ms
                assert max(cut_offs.all_ms, cut_offs.models.get("m", 0)) >= dead_model_ms


def test_settings_decide_the_longest_life() -> None:
    """Fresh, then the longer of the two kinds of stale."""
    settings = Settings(
        secret=SecretStr("0123456789abcdef0123456789abcdef"),
        ttl_s=1,
        max_ttl_s=100,
        stale_while_revalidate_s=20,
        stale_if_error_s=7,
    )
    control = Control.from_settings(settings, MemoryControlStore())
    assert control._longest_life_ms == 120_000


def test_tags_are_meant_as_every_secret_has_them() -> None:
    """Entries made before a rotation hold the digests of the previous one."""
    rings = key_rings("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210")
    purge = purge_of(rings, "acme", tags=["news"], models=["m"])
    assert set(purge.tags) == {tag_digest(ring, "acme", "news") for ring in rings}
    assert purge.models == ("m",)


async def _no_sleep(_delay_s: float) -> None:
    """Instead of waiting for memos to end."""


async def _turns() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
