"""The engine that counts what another one generates."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from origin.engine.contract import Finished
from origin.engine.metered import MeteredEngine
from origin.metrics import GENERATIONS
from origin.stores.memory_usage import MemoryUsageStore
from origin.usage import Recorder
from shared.errors import UpstreamError
from shared.requests import Endpoint, validate
from tests.support.engines import MODEL, ScriptedEngine
from tests.support.instruments import value_of

REQUEST = validate(
    Endpoint.CHAT, {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
)


async def test_what_was_spent_is_counted() -> None:
    """Once, when the run ends, whoever it was for; what is said is the other engine's."""
    engine, recorder = ScriptedEngine(), Recorder(MemoryUsageStore())
    metered = MeteredEngine(engine, recorder)
    before = value_of(GENERATIONS)
    for tenant in ("acme", None):
        events = []
        async for event in metered.run(REQUEST, tenant=tenant):
            events.append(event)
            assert value_of(GENERATIONS) == before + 1
        assert isinstance(events[-1], Finished)
    assert value_of(GENERATIONS) == before
    await recorder.flush()
    assert (await recorder.store.read("acme", top=0)).numbers == {
        (MODEL, None, "spent", "prompt"): 3,
        (MODEL, None, "spent", "completion"): 2,
    }
    assert await metered.models() == await engine.models()
    assert await metered.fingerprint(MODEL) == "f1"


async def test_a_run_that_does_not_end_spends_nothing_known() -> None:
    """It failed, or nobody listens any more: the engine stops, the gauge goes back."""
    engine, recorder = ScriptedEngine(), Recorder(MemoryUsageStore())
    metered = MeteredEngine(engine, recorder)
    before = value_of(GENERATIONS)
    async with aclosing(metered.run(REQUEST, tenant="acme")) as events:
        await anext(events)
    assert engine.cancelled == 1
    engine.failure = UpstreamError("It broke.")
    with pytest.raises(UpstreamError):
        await anext(metered.run(REQUEST, tenant="acme"))
    assert value_of(GENERATIONS) == before
    await recorder.flush()
    assert await recorder.store.tenants() == frozenset()
