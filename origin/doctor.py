"""What is wrong with a deployment, and its fix: each part is looked at as the origin would use it.

Nothing is changed, and no model answers unless that is asked for. Findings come one by one, since a
part that does not answer takes a while. No text here quotes a secret.

The edge tells of itself under a route that only who has the secret finds (`DIAGNOSIS_PATH`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx

from origin.embedded_redis import find_server
from origin.failures import first_line
from origin.settings import Settings, SettingsError, Upstream
from origin.stores.redis_checks import check_redis, clock_off, used
from shared.diagnosis import agreement
from shared.keys import edge_bearer
from shared.wire import DIAGNOSIS_PATH, EDGE_AUTHORIZATION

if TYPE_CHECKING:
    from origin.engine.contract import Engine

TIMEOUT_S = 5.0
EDGE_TIMEOUT_S = 15.0
"""An isolate that starts, and then asks its origin."""
State = Literal["ok", "note", "warning", "fault"]
Clock = Callable[[], float]
_OUR_ACCOUNT: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was seen of a part. A `fault` keeps Encore from working, a `warning` from doing it well.

    `fix` is what to do, empty where there is nothing to.
    """

    part: str
    state: State
    text: str
    fix: str = ""


async def examine(
    settings: Settings, *, edge_url: str | None, load: bool = False, clock_s: Clock = time.time
) -> AsyncIterator[Finding]:
    """Look at every part. With `load` the local model is loaded, and says a token."""
    async for finding in _redis(settings, clock_s):
        yield finding
    if settings.all_upstreams:
        for upstream in settings.all_upstreams:
            yield await _upstream(upstream)
    else:
        model = await asyncio.to_thread(_local_model, settings)
        yield model
        if load and model.state != "fault":
            yield await _loaded(settings)
    yield await asyncio.to_thread(_semantic, settings)
    yield await _origin(settings)
    async for finding in _edge(settings, edge_url, clock_s):
        yield finding
    if not settings.prices.root:
        yield Finding(
            part="prices",
            state="note",
            text="none are set: statistics tell no money",
            fix='set ENCORE_PRICES, as {"gpt-4o*": {"input": 2.5, "output": 10}}',
        )


def of_settings(error: SettingsError, part: str = "settings") -> Iterator[Finding]:
    """The findings of settings that are refused: each line names a variable and its fix."""
    for line in str(error).splitlines():
        text, _, fix = line.partition("; ")
        yield Finding(part=part, state="fault", text=text, fix=fix)


async def _redis(settings: Settings, clock_s: Clock) -> AsyncIterator[Finding]:
    servers = used(settings)
    if not servers:
        yield _embedded()
    for variable, (url, keeps_control) in servers.items():
        found = await check_redis(url, keeps_control=keeps_control, clock_s=clock_s)
        for finding in found:
            state: State = "fault" if finding.refused or finding.unreachable else "warning"
            fix = finding.fix
            if finding.unreachable:
                fix = f"start it, or set {variable} to the one that runs"
            yield Finding(part=variable, state=state, text=f"Redis {finding.text}", fix=fix)
        if not found:
            yield Finding(part=variable, state="ok", text="Redis is fit")


def _embedded() -> Finding:
    try:
        server = find_server()
    except SettingsError as error:
        return next(of_settings(error))
    return Finding(
        part="REDIS_URL", state="ok", text=f"not set: {server.name} is started beside the origin"
    )


async def _upstream(upstream: Upstream) -> Finding:
    part = f"upstream {upstream.base_url}"
    root = upstream.base_url.removesuffix("/v1")
    key = None if upstream.api_key is None else upstream.api_key.get_secret_value()
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    said = await _get(f"{root}/v1/models", headers)
    if not isinstance(said, httpx.Response):
        return Finding(
            part=part,
            state="fault",
            text=f"cannot be asked ({said})",
            fix="start it, or correct ENCORE_UPSTREAM (or the base_url in ENCORE_UPSTREAMS)",
        )
    if said.status_code in _OUR_ACCOUNT:
        given = "is refused" if key is not None else "is missing"
        return Finding(
            part=part,
            state="fault",
            text=f"answers {said.status_code}: its API key {given}",
            fix="set ENCORE_UPSTREAM_API_KEY (or api_key in ENCORE_UPSTREAMS) to one that it takes",
        )
    models = _models(said)
    if models is None:
        return Finding(
            part=part,
            state="warning",
            text=f"lists no models (status {said.status_code}): it may not be an OpenAI-compatible "
            "API",
            fix="see that ENCORE_UPSTREAM ends where `/v1` begins",
        )
    return Finding(part=part, state="ok", text=f"answers, and lists {len(models)} models")


def _local_model(settings: Settings) -> Finding:
    """Its configuration, tokenizer and weights are there; nothing is loaded."""
    try:
        from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415 - seconds

        from origin.engine.demo import DEMO_CHECKPOINT  # noqa: PLC0415
        from origin.engine.fingerprints import checkpoint_folder  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return Finding(
            part="model",
            state="fault",
            text=f"no ENCORE_UPSTREAM is set, and {error.name} is not installed",
            fix="set ENCORE_UPSTREAM, or install encore[local]",
        )

    source = settings.model or str(DEMO_CHECKPOINT)
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        folder = checkpoint_folder(source)
    except (OSError, ValueError, KeyError) as error:
        return Finding(
            part="model",
            state="fault",
            text=f"ENCORE_MODEL={source!r} cannot be read ({first_line(error)})",
            fix="give a folder with a transformers checkpoint, or the id of one that can be had",
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return Finding(
            part="model",
            state="fault",
            text=f"ENCORE_MODEL={source!r} has no weights (*.safetensors) in {folder}",
            fix="copy the whole checkpoint there, or let transformers download it",
        )
    if not (settings.chat_template or tokenizer.chat_template):
        return Finding(
            part="model",
            state="warning",
            text="has no chat template: it serves /v1/completions only",
            fix="set ENCORE_CHAT_TEMPLATE",
        )
    name = "the demo model" if settings.model is None else source
    return Finding(part="model", state="ok", text=f"{name} ({config.model_type}) can be read")


async def _loaded(settings: Settings) -> Finding:
    """The engine as the origin has it says a token."""
    from origin.engine.local import load_local_engine  # noqa: PLC0415 - seconds
    from shared.requests import Endpoint, validate  # noqa: PLC0415

    try:
        engine: Engine = await asyncio.to_thread(load_local_engine, settings)
    except SettingsError as error:
        return next(of_settings(error))
    try:
        model = (await engine.models())[0].id
        fields = {"model": model, "prompt": "Hello", "max_tokens": 1}
        began_s = time.monotonic()
        async with aclosing(engine.run(validate(Endpoint.COMPLETIONS, fields))) as events:
            async for _ in events:
                pass
    except Exception as error:  # noqa: BLE001 - whatever the model does is what is asked for
        return Finding(
            part="model",
            state="fault",
            text=f"loads, and then fails ({type(error).__name__}: {first_line(error)})",
            fix="try another ENCORE_DTYPE or ENCORE_DEVICE; the origin's log says more",
        )
    finally:
        await engine.close()
    took_s = time.monotonic() - began_s
    return Finding(part="model", state="ok", text=f"loads, and says a token in {took_s:.2f} s")


def _semantic(settings: Settings) -> Finding:
    """What decides about meaning is there and goes together, and the encoder encodes."""
    if settings.semantic == "off":
        return Finding(part="semantic", state="note", text="ENCORE_SEMANTIC is off")
    try:
        from origin.semantic.loading import MissingError, load_decider  # noqa: PLC0415 - seconds
    except ImportError as error:
        return _no_semantic(settings, f"{error.name} is not installed")
    try:
        encoder, _, calibration = load_decider(settings)
        encoder.encode(["What does Encore need?"])
    except MissingError as error:
        return _no_semantic(settings, str(error))
    except SettingsError as error:
        return next(of_settings(error, "semantic"))
    return Finding(
        part="semantic",
        state="ok",
        text=f"encoder {encoder.identity}, calibration {calibration.version}",
    )


def _no_semantic(settings: Settings, missing: str) -> Finding:
    return Finding(
        part="semantic",
        state="fault" if settings.semantic == "on" else "warning",
        text=f"nothing is matched by meaning: {missing}",
        fix="install encore[local] (`make setup` does), or set ENCORE_SEMANTIC=off",
    )


async def _origin(settings: Settings) -> Finding:
    url = settings.origin_url or settings.local_origin_url
    part = f"origin {url}"
    said = await _get(f"{url}/readyz", {})
    if not isinstance(said, httpx.Response):
        return Finding(
            part=part,
            state="note",
            text=f"does not run ({said})",
            fix="`encore origin` starts it; elsewhere, set ENCORE_ORIGIN_URL",
        )
    parts = _object(said).get("parts")
    if not isinstance(parts, dict):
        return Finding(
            part=part,
            state="fault",
            text="is something else: it does not answer as Encore's origin",
            fix="set ENCORE_ORIGIN_PORT (or ENCORE_ORIGIN_URL) to where the origin listens",
        )
    ill = [f"{name} {state}" for name, state in parts.items() if state != "ok"]
    if ill:
        return Finding(
            part=part,
            state="fault",
            text=f"is not ready: {', '.join(ill)}",
            fix="see above for that part, and the origin's log",
        )
    return Finding(part=part, state="ok", text="is ready")


async def _edge(settings: Settings, edge_url: str | None, clock_s: Clock) -> AsyncIterator[Finding]:
    url = edge_url or settings.edge_url
    if url is None:
        yield Finding(
            part="edge",
            state="note",
            text="not looked at: its address is not known",
            fix="set ENCORE_EDGE_URL, or give --edge URL",
        )
        return
    part = f"edge {url}"
    alive = await _get(f"{url}/healthz", {})
    if not isinstance(alive, httpx.Response) or _object(alive) != {"status": "ok"}:
        why = alive.status_code if isinstance(alive, httpx.Response) else alive
        yield Finding(
            part=part,
            state="fault",
            text=f"no edge answers there ({why})",
            fix="correct ENCORE_EDGE_URL, or deploy the Worker (`encore edge` runs one here)",
        )
        return
    before_s = clock_s()
    for ring in settings.keys:
        headers = {EDGE_AUTHORIZATION: f"Bearer {edge_bearer(ring)}"}
        said = await _get(url + DIAGNOSIS_PATH, headers, timeout_s=EDGE_TIMEOUT_S)
        if isinstance(said, httpx.Response) and said.status_code != HTTPStatus.NOT_FOUND:
            break
    after_s = clock_s()
    if not isinstance(said, httpx.Response) or not said.is_success:
        yield Finding(
            part=part,
            state="fault",
            text="does not know this ENCORE_SECRET, or is too old to tell",
            fix="give the Worker the origin's secret (`wrangler secret put ENCORE_SECRET`), and "
            "deploy the same version",
        )
        return
    told = _object(said)
    if told.get("agreement") == agreement(ring):
        yield Finding(part=part, state="ok", text="makes the same keys as the origin")
    else:
        yield Finding(
            part=part,
            state="fault",
            text="makes other keys than this origin: nothing it has is ever found",
            fix="deploy edge and origin of the same version",
        )
    clock_ms = told.get("clock_ms")
    if isinstance(clock_ms, int):
        off = clock_off(clock_ms / 1000, before_s, after_s)
        if off is not None:
            yield Finding(
                part=part,
                state="fault",
                text=f"{off}: entries end by it",
                fix="synchronise this machine's clock (NTP)",
            )
    status = told.get("origin_status")
    if status != HTTPStatus.OK:
        how = f"gets {status} of its origin" if status else "does not reach its origin"
        yield Finding(
            part=part,
            state="fault",
            text=how,
            fix="set the Worker's ENCORE_ORIGIN_URL to where the origin can be reached from there, "
            "and see that the origin is ready",
        )


async def _get(
    url: str, headers: dict[str, str], *, timeout_s: float = TIMEOUT_S
) -> httpx.Response | str:
    """What answers, or the words for nothing."""
    try:
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            return await client.get(url, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}".rstrip(": ")


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        said = response.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _models(response: httpx.Response) -> list[Any] | None:
    listed = _object(response).get("data")
    return listed if response.is_success and isinstance(listed, list) else None
