"""What an isolate remembers of control documents, over a KV and an origin that are the test's own.

In workerd `tests.edge.test_edge_control` shows what they decide.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from shared.control_document import ControlDocument, decode, encode
from tests.edge.local_edge import ROOT

_EMPTY = ControlDocument(tenant="acme", revision=1)


class Platform(ModuleType):
    """`runtime` with one text in KV, which each read gives anew."""

    PlatformError = type("PlatformError", (Exception,), {})

    def __init__(self) -> None:
        super().__init__("runtime")
        self.text = encode(_EMPTY).decode()

    async def kv_get_text(self, _kv: Any, _name: str, _cache_ttl_s: int) -> str:
        """Read it, as others do meanwhile."""
        await asyncio.sleep(0)
        return self.text.encode().decode()


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """It stands in for the module while the Worker's others are imported, and goes with them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "worker"))
    platform = Platform()
    monkeypatch.setitem(sys.modules, "runtime", platform)
    yield platform
    for name in set(sys.modules) - before:
        if (ROOT / "worker" / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def documents(platform: Platform) -> Any:
    """The documents of an isolate whose memo is always over."""
    assert platform.text
    return importlib.import_module("control_documents").ControlDocuments(None, None, 0)


async def test_same_text_is_decoded_once(documents: Any, platform: Platform) -> None:
    """Whoever comes when the memo is over gets the document that is there."""
    first = await documents.read("acme")
    again = await asyncio.gather(*(documents.read("acme") for _ in range(3)))
    assert first == decode(platform.text, "acme")
    assert all(document is first for document in again)


async def test_another_text_is_decoded(documents: Any, platform: Platform) -> None:
    """Once by those who read it together; an earlier one is no news."""
    first = await documents.read("acme")
    earlier, platform.text = platform.text, encode(replace(first, revision=2)).decode()
    second, third = await asyncio.gather(documents.read("acme"), documents.read("acme"))
    assert second is third
    assert second.revision == 2
    platform.text = earlier
    assert await documents.read("acme") is second


async def test_doubted_document_is_confirmed_by_a_later_one_alone(
    documents: Any, platform: Platform
) -> None:
    """KV may still have the one that was doubted."""
    first = await documents.read("acme")
    documents.doubt_all()
    assert await documents.read("acme") is None
    assert documents.last_known("acme") is first
    platform.text = encode(replace(first, revision=2)).decode()
    assert (await documents.read("acme")).revision == 2
