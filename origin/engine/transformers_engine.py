"""An engine that runs a causal language model of transformers on this machine, CPU or CUDA.

Theory of operation: a run renders and tokenizes its prompts on some thread, then takes turns with
others on the engine's own (`origin.engine.scheduler`): prompts are read block by block after what
the prefix cache knows of them, answers decoded token by token (`origin.engine.generation`). Events
are handed to the event loop, which never waits for a thread. Every choice has its own random
generator; the global one is neither read nor moved.

What a request leaves out
- temperature, top_p: the checkpoint's `generation_config.json` (`do_sample` false is greedy), and
  its `top_k` in any case where it samples. Its other settings are not applied.
- max_tokens: for chat as many as the context window leaves; for completions 16, as OpenAI's.
A limit beyond the context window ends there, with `finish_reason` `length`. With `context_window`
(`origin.engine.context_window`) nothing ends there: the oldest tokens are dropped instead.

Invariants
1. Beyond `concurrency + queue_limit` runs that are under way a run is refused.
2. Closing the iterator ends a run within one token, or one block of a prompt.
3. Every pass is of one sequence (but with `batching`), on one thread, with one number of torch's
   threads: what runs beside it does not change its bits.
4. Nothing of a prompt or an answer is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from origin.engine.answers import Reply
from origin.engine.causal_model import CausalModel
from origin.engine.context_window import (
    ContextWindow,
    UnsupportedWindowError,
    WindowTrimmer,
)
from origin.engine.contract import Event, Finished, ModelInfo
from origin.engine.cuts import Cuts
from origin.engine.decode_batch import DecodeBatch, works_with
from origin.engine.demo import DEMO_CHECKPOINT, DEMO_NAME
from origin.engine.fingerprints import checkpoint_folder, fingerprint
from origin.engine.generation import Generation
from origin.engine.parameters import check_parameters
from origin.engine.prefix_cache import PrefixCache, Root
from origin.engine.prompts import Prompts
from origin.engine.scheduler import Scheduler, failed
from shared.errors import ClientError, EncoreError
from shared.requests import ChatRequest, CompletionRequest, EmbeddingRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from origin.engine.prefix_cache import Mode
    from origin.engine.prompts import Prompt
    from shared.requests import Request

logger = logging.getLogger(__name__)


class TransformersEngine:
    """Implements `Engine` with one causal language model. Made by `load`."""

    def __init__(
        self,
        *,
        model: CausalModel,
        prompts: Prompts,
        info: ModelInfo,
        prefixes: PrefixCache,
        batch: DecodeBatch | None = None,
        concurrency: int = 4,
        queue_limit: int = 64,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._info = info
        self._prefixes = prefixes
        self._batch = batch
        mode = "fast" if prefixes.is_fast else "exact"
        self._identity = f"{info.fingerprint} {model.identity} {prefixes.cuts.identity} {mode}"
        self._scheduler = Scheduler(
            concurrency=concurrency,
            limit=concurrency + queue_limit,
            context=partial(_on_engine_thread, torch.get_num_threads()),
        )

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        name: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        chat_template: str | None = None,
        concurrency: int = 4,
        queue_limit: int = 64,
        prefix_cache: Mode = "exact",
        prefix_cache_bytes: int | None = None,
        pinned_prompts: Mapping[str, str] | None = None,
        context_window: ContextWindow | None = None,
        cuts: Cuts | None = None,
        batching: bool = False,
    ) -> Self:
        """Load a folder or a hub id; None is the demo model. Blocking: seconds to minutes.

        `dtype` `auto` is float32 on a CPU and the checkpoint's own elsewhere; `device` `auto` is
        CUDA where there is one, `spread` all of them and then the CPU, as accelerate divides a
        model that none has room for. `name` is what clients call the model. `prefix_cache_bytes`
        None is what `default_limit_bytes` says. With `batching` tokens of several answers are made
        in one pass, which changes their bits. Raises what transformers raises (OSError, ValueError)
        where there is no such model, UnsupportedWindowError where it cannot generate in
        `context_window`.
        """
        is_demo = source is None or Path(source).resolve() == DEMO_CHECKPOINT.resolve()
        source = str(DEMO_CHECKPOINT if source is None else source)
        spread = {"device_map": "auto"} if device == "spread" else {}
        if device in {"auto", "spread"}:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and device == "cpu":
            dtype = "float32"
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
        if device == "cpu":
            # Or heads of a group are copied for each query head: a tenth of a masked block's time.
            # CUDA's fast kernels want it as transformers decides.
            os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **spread)
        model = CausalModel((loaded if spread else loaded.to(device)).eval(), tokenizer)
        if context_window is not None:
            if batching:
                raise ValueError("a batch is not trimmed: no context window with batching")
            model.trimmer = _trimmer(model, context_window)
        prompts = Prompts(
            tokenizer,
            template=chat_template,
            context_tokens=model.context_tokens,
            is_endless=context_window is not None,
        )
        cuts = cuts or Cuts()
        folder = checkpoint_folder(source)
        if name is None:
            name = (
                DEMO_NAME if is_demo else folder.resolve().name if Path(source).is_dir() else source
            )
        info = ModelInfo(
            id=name,
            created=int((folder / "config.json").stat().st_mtime),
            owned_by="encore-demo" if is_demo else "local",
            fingerprint=fingerprint(
                source,
                folder,
                chat_template or tokenizer.chat_template or "",
                model.identity,
                cuts.identity,
                "fast" if prefix_cache == "fast" else "exact",
                *([] if context_window is None else [str(context_window)]),
                "batching" if batching else "",
                transformers.__version__,
                torch.__version__,
            ),
            max_tokens=model.context_tokens,
        )
        if prefix_cache != "off" and model.layout is None:
            logger.warning("no prefix cache with %s, because %s", name, model.why_no_layout)
        if batching and not works_with(model):
            batching = False
            logger.warning("no batching with %s: it does not take masks and positions so", name)
        if prefix_cache_bytes is None:
            prefix_cache_bytes = default_limit_bytes(torch.device(device))
        prefixes = PrefixCache(
            model,
            cuts,
            mode=prefix_cache,
            limit_bytes=prefix_cache_bytes,
            pinned={
                each: prompts.system_prefix(text) for each, text in (pinned_prompts or {}).items()
            },
        )
        return cls(
            model=model,
            prompts=prompts,
            info=info,
            prefixes=prefixes,
            batch=DecodeBatch(model) if batching else None,
            concurrency=concurrency,
            queue_limit=queue_limit,
        )

    async def models(self) -> Sequence[ModelInfo]:
        """The one model."""
        return (self._info,)

    async def fingerprint(self, model: str) -> str:
        """The fingerprint of `model`. Raises ClientError 404."""
        self._check_model(model)
        return self._info.fingerprint

    def check(self, request: Request) -> None:
        """Raise ClientError naming the first field that cannot be honoured."""
        self._check_model(request.model)
        if isinstance(request, EmbeddingRequest):
            raise ClientError(
                f"The model '{self._info.id}' does not make embeddings.",
                param="model",
                code="unsupported_model",
            )
        check_parameters(request, vocabulary=self._model.vocabulary)
        if isinstance(request, ChatRequest) and not self._prompts.serves_chat:
            raise ClientError(
                f"The model '{self._info.id}' has no chat template, so it serves /v1/completions "
                "only. Set ENCORE_CHAT_TEMPLATE on the origin to serve chat.",
                param="messages",
                code="chat_template_missing",
            )

    async def run(
        self, request: Request, *, tenant: str | None = None, scope: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Generate on the engine's thread; closing the iterator stops it within one token.

        Raises ClientError for what `check` refuses and for prompts beyond the context window,
        InternalError 503 when the queue is full or the engine closes, else InternalError 500.
        """
        asked_s = time.monotonic()
        self.check(request)
        # Narrowed by `check`, which refuses embeddings.
        assert isinstance(request, ChatRequest | CompletionRequest)  # noqa: S101
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | EncoreError] = asyncio.Queue()

        def emit(event: Event | EncoreError) -> None:
            # A closed loop: nobody listens any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = self._scheduler.enter(emit)
        try:
            generation = Generation(
                request=request,
                prompts=await self._read(request),
                reply=self._reply(request),
                model=self._model,
                prefixes=self._prefixes,
                root=Root(engine=self._identity, tenant=tenant, scope=scope or None),
                decode=self._prompts.decode,
                asked_s=asked_s,
                batch=self._batch,
            )
            self._scheduler.start(job, generation.steps())
            while True:
                event = await events.get()
                if isinstance(event, EncoreError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self._scheduler.leave(job)

    def forget(self, tenant: str | None = None) -> None:
        """Drop the known prefixes of a tenant, or of all, soon; see Engine.forget."""
        self._scheduler.do(lambda: self._prefixes.forget(tenant))

    async def close(self) -> None:
        """Stop every run, with a 503, and wait for the thread."""
        await asyncio.to_thread(self._scheduler.close)
        self._prefixes.forget(None)

    def _check_model(self, model: str) -> None:
        if model != self._info.id:
            raise ClientError(
                f"The model '{model[:80]}' does not exist. This origin serves '{self._info.id}'.",
                status=404,
                param="model",
                code="model_not_found",
            )

    async def _read(self, request: ChatRequest | CompletionRequest) -> list[Prompt]:
        """The prompts of a request, made on some thread: long ones take a while."""
        try:
            return await asyncio.to_thread(self._prompts.of, request)
        except EncoreError:
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of the library
            raise failed(error) from None

    def _reply(self, request: ChatRequest | CompletionRequest) -> Reply:
        kind = "chatcmpl-" if isinstance(request, ChatRequest) else "cmpl-"
        return Reply(
            endpoint=request.endpoint,
            id=kind + uuid.uuid4().hex,
            created=int(time.time()),
            model=self._info.id,
            fingerprint=self._info.fingerprint,
        )


def _trimmer(model: CausalModel, window: ContextWindow) -> WindowTrimmer:
    if model.layout is None:
        raise UnsupportedWindowError(f"no context window for this model: {model.why_no_layout}")
    with torch.inference_mode():
        return WindowTrimmer.of(model.module, window)


def default_limit_bytes(device: torch.device) -> int:
    """How much a prefix cache may hold where nobody says: a tenth of the memory, at most 2 GiB.

    Of CUDA's what is free now, the model loaded; elsewhere of the machine's.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(2 << 30, free // 10)


@contextlib.contextmanager
def _on_engine_thread(threads: int) -> Iterator[None]:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        yield
