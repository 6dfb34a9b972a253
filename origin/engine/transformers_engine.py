"""An engine that runs a causal language model of transformers on this machine, CPU or CUDA.

Theory of operation: a run is one job on a small thread pool. The thread renders and tokenizes the
prompt, prefills it, then decodes token by token, and hands events to the event loop, which never
waits for it. Every choice has its own random generator; the global one is neither read nor moved.

What a request leaves out
- temperature, top_p: the checkpoint's `generation_config.json` (`do_sample` false is greedy), and
  its `top_k` in any case where it samples. Its other settings are not applied.
- max_tokens: for chat as many as the context window leaves; for completions 16, as OpenAI's.
A limit beyond the context window ends there, with `finish_reason` `length`.

Usage counts every token sampled except the end-of-turn token; a prompt counts once, whatever `n`.

Invariants
1. `_jobs` holds exactly the jobs queued or running; beyond `concurrency + queue_limit` of them a
   run is refused.
2. A job looks at its `stop` event before every forward pass: closing the iterator ends it within
   one token, or one block of the prompt.
3. Nothing of a prompt or an answer is logged.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import threading
import time
import traceback
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import jinja2
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.hub import cached_file

from origin.engine.answers import Choice, Reply
from origin.engine.contract import Chunk, Event, Finished, ModelInfo
from origin.engine.demo import DEMO_CHECKPOINT, DEMO_NAME
from origin.engine.fingerprints import fingerprint
from origin.engine.parameters import chat_messages, check_parameters, stops
from origin.engine.sampling import Sampler, Sampling
from origin.engine.text_output import Detokenizer, StopFilter
from origin.metrics import ENGINE_JOBS
from shared.errors import ClientError, EncoreError, InternalError
from shared.requests import ChatRequest, CompletionRequest, EmbeddingRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from shared.requests import Request

logger = logging.getLogger(__name__)

_COMPLETION_MAX_TOKENS: Final = 16
_PREFILL_BLOCK_TOKENS: Final = 512
_CONTEXT_OF_TEXT_TOKENS: Final = 6  # enough for any decoder to see what the text continues
_RETRY_AFTER_S: Final = 2
_CORES: Final = torch.get_num_threads()  # torch's own choice, before any engine divides it
_DEFAULT_CONTEXT_TOKENS: Final = 2048
_TEMPLATE_REFUSES: Final = (
    "The model's chat template does not accept these messages (their roles or their order)."
)


class TransformersEngine:
    """Implements `Engine` with one causal language model. Made by `load`."""

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        info: ModelInfo,
        chat_template: str | None = None,
        concurrency: int = 2,
        queue_limit: int = 64,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._info = info
        self._template = chat_template or tokenizer.chat_template
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)
        self._context_tokens = info.max_tokens or _DEFAULT_CONTEXT_TOKENS
        # Undoes a truncation that a tokenizer's file may set, before threads share it.
        tokenizer("")
        self._ends = _end_tokens(model, tokenizer)
        self._defaults = _default_sampling(model)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        # The jobs share the cores, or their threads fight over them. Torch knows this number for
        # the process only.
        self._executor = ThreadPoolExecutor(
            concurrency,
            thread_name_prefix="encore-engine",
            initializer=torch.set_num_threads,
            initargs=(max(1, _CORES // concurrency),),
        )
        self._limit = concurrency + queue_limit
        self._jobs: set[Future[None]] = set()
        self._closing = threading.Event()

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        name: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        chat_template: str | None = None,
        concurrency: int = 2,
        queue_limit: int = 64,
    ) -> Self:
        """Load a folder or a hub id; None is the demo model. Blocking: seconds to minutes.

        `dtype` `auto` is float32 on a CPU and the checkpoint's own elsewhere; `device` `auto` is
        CUDA where there is one. `name` is what clients call the model. Raises what transformers
        raises (OSError, ValueError) where there is no such model.
        """
        is_demo = source is None or Path(source).resolve() == DEMO_CHECKPOINT.resolve()
        source = str(DEMO_CHECKPOINT if source is None else source)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and device == "cpu":
            dtype = "float32"
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        model = loaded.to(device).eval()
        folder = Path(source)
        if not folder.is_dir():
            folder = Path(cached_file(source, "config.json") or "").parent
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
                str(model.dtype),
                torch.device(device).type,
                transformers.__version__,
                torch.__version__,
            ),
            max_tokens=_context_tokens(model, tokenizer),
        )
        return cls(
            model=model,
            tokenizer=tokenizer,
            info=info,
            chat_template=chat_template,
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
        check_parameters(request, vocabulary=self._vocabulary)
        if isinstance(request, ChatRequest) and not self._template:
            raise ClientError(
                f"The model '{self._info.id}' has no chat template, so it serves /v1/completions "
                "only. Set ENCORE_CHAT_TEMPLATE on the origin to serve chat.",
                param="messages",
                code="chat_template_missing",
            )

    async def run(
        self,
        request: Request,
        *,
        tenant: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[Event, None]:
        """Generate on a thread; closing the iterator stops it within one token.

        Raises ClientError for what `check` refuses and for prompts beyond the context window,
        InternalError 503 when the queue is full or the engine closes, else InternalError 500.
        """
        self.check(request)
        if self._closing.is_set() or len(self._jobs) >= self._limit:
            raise _unavailable("The model is busy: too many requests are waiting.", "overloaded")
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | EncoreError] = asyncio.Queue()
        stop = threading.Event()

        def emit(event: Event | EncoreError) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the loop is closed: nobody listens any more
                stop.set()

        def ended(job: Future[None]) -> None:
            self._jobs.discard(job)
            ENGINE_JOBS.dec()
            if job.cancelled():
                emit(_closed())

        job = self._executor.submit(self._work, request, emit, stop)
        self._jobs.add(job)
        ENGINE_JOBS.inc()
        job.add_done_callback(ended)
        try:
            while True:
                event = await events.get()
                if isinstance(event, EncoreError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            stop.set()
            job.cancel()

    async def close(self) -> None:
        """Stop every job and wait for the threads. Runs in progress end with a 503."""
        self._closing.set()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _check_model(self, model: str) -> None:
        if model != self._info.id:
            raise ClientError(
                f"The model '{model[:80]}' does not exist. This origin serves '{self._info.id}'.",
                status=404,
                param="model",
                code="model_not_found",
            )

    def _work(
        self, request: Request, emit: Callable[[Event | EncoreError], None], stop: threading.Event
    ) -> None:
        """The job of a run, on a thread: emits its events, or one error. Never raises."""
        try:
            with torch.inference_mode():
                for event in self._generate(request, stop):
                    emit(event)
        except _StoppedError:
            emit(_closed())
        except EncoreError as error:
            emit(error)
        except Exception as error:  # noqa: BLE001 -- the boundary of the thread
            # Type and place only: a message may quote the prompt.
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error(  # noqa: TRY400 -- `exception` would log the message
                "generation failed: %s\n%s", type(error).__name__, place
            )
            emit(InternalError("The model failed to generate an answer.", code="engine_error"))

    def _generate(self, request: Request, stop: threading.Event) -> Iterator[Event]:
        # Narrowed by `check`, which refuses embeddings.
        assert isinstance(request, ChatRequest | CompletionRequest)  # noqa: S101
        chat = isinstance(request, ChatRequest)
        prompts = list(self._prompts(request))
        sampling = self._sampling(request)
        reply = Reply(
            endpoint=request.endpoint,
            id=("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
            created=int(time.time()),
            model=self._info.id,
            fingerprint=self._info.fingerprint,
        )
        choices: list[Choice] = []
        sampled = 0
        for prompt in prompts:
            limit = min(
                self._max_tokens(request, len(prompt.ids)), self._context_tokens - len(prompt.ids)
            )
            state = self._prefill(prompt.ids, stop)
            count = request.n or 1
            for remaining in range(count - 1, -1, -1):
                index = len(choices)
                decoding = _Decoding(
                    sampler=Sampler(sampling, choice=index),
                    text=Detokenizer(
                        self._decode,
                        context=() if chat else prompt.ids[-_CONTEXT_OF_TEXT_TOKENS:],
                    ),
                    stops=StopFilter(stops(request.stop)),
                    limit=limit,
                )
                opening = reply.opening(index)
                if opening is not None:
                    yield Chunk(payload=opening)
                pieces: list[str] = []
                if isinstance(request, CompletionRequest) and request.echo:
                    pieces.append(prompt.text)
                    yield Chunk(payload=reply.delta(index, prompt.text))
                for piece in self._decode_choice(
                    decoding, copy.deepcopy(state) if remaining else state, stop
                ):
                    pieces.append(piece)
                    yield Chunk(payload=reply.delta(index, piece))
                yield Chunk(payload=reply.closing(index, decoding.finish_reason))
                choices.append(Choice(text="".join(pieces), finish_reason=decoding.finish_reason))
                sampled += decoding.sampled
        yield Finished(
            answer=reply.answer(
                choices,
                prompt_tokens=sum(len(prompt.ids) for prompt in prompts),
                completion_tokens=sampled,
            )
        )

    def _prompts(self, request: ChatRequest | CompletionRequest) -> Iterator[_Prompt]:
        """The prompts as tokens. Raises ClientError where one leaves no room for an answer."""
        if isinstance(request, ChatRequest):
            yield self._fitting(self._chat_prompt(request), "messages")
            return
        several = request.prompts[0] is not request.prompt
        for index, given in enumerate(request.prompts):
            where = f"prompt[{index}]" if several else "prompt"
            if isinstance(given, str):
                text, ids = given, self._encode(given, special=True)
            else:
                text, ids = "", list(given)
            # Nothing to begin with: the model's own beginning of a text.
            ids = ids or [self._begin_token(where)]
            prompt = _Prompt(ids=ids, text=text or self._decode(ids))
            yield self._fitting(prompt, where)

    def _chat_prompt(self, request: ChatRequest) -> _Prompt:
        messages = chat_messages(request, developer="developer" in str(self._template))
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                chat_template=self._template,
            )
        except jinja2.TemplateError:
            # Not its message: a template may quote the conversation.
            raise ClientError(
                _TEMPLATE_REFUSES, param="messages", code="invalid_messages"
            ) from None
        return _Prompt(ids=self._encode(text, special=False), text=text)

    def _fitting(self, prompt: _Prompt, param: str) -> _Prompt:
        if len(prompt.ids) >= self._context_tokens:
            raise ClientError(
                f"This model's maximum context length is {self._context_tokens} tokens. However, "
                f"'{param}' resulted in {len(prompt.ids)} tokens. Please reduce its length.",
                param=param,
                code="context_length_exceeded",
            )
        return prompt

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False).input_ids
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _begin_token(self, param: str) -> int:
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ClientError(
            f"Invalid '{param}': this model needs a prompt.", param=param, code="empty_string"
        )

    def _sampling(self, request: ChatRequest | CompletionRequest) -> Sampling:
        default = self._defaults
        temperature, top_p = request.temperature, request.top_p
        return Sampling(
            temperature=default.temperature if temperature is None else temperature,
            top_p=default.top_p if top_p is None else top_p,
            top_k=default.top_k,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
            seed=request.seed,
        )

    def _max_tokens(self, request: ChatRequest | CompletionRequest, prompt_tokens: int) -> int:
        limit = request.max_tokens
        if isinstance(request, ChatRequest):
            if request.max_completion_tokens is not None:
                limit = request.max_completion_tokens
            return self._context_tokens - prompt_tokens if limit is None else limit
        return _COMPLETION_MAX_TOKENS if limit is None else limit

    def _prefill(self, ids: Sequence[int], stop: threading.Event) -> _State:
        """Run the prompt through the model, in blocks so that it can be stopped."""
        state = _State(cache=None, logits=None)
        for start in range(0, len(ids), _PREFILL_BLOCK_TOKENS):
            self._forward(state, ids[start : start + _PREFILL_BLOCK_TOKENS], stop)
        return state

    def _forward(self, state: _State, ids: Sequence[int], stop: threading.Event) -> None:
        """Extend `state` by `ids`. Raises _StoppedError instead where the job was stopped."""
        if stop.is_set() or self._closing.is_set():
            raise _StoppedError
        kept = {"logits_to_keep": 1} if self._keeps_logits else {}
        out = self._model(
            input_ids=torch.tensor([ids], device=self._model.device),
            past_key_values=state.cache,
            use_cache=True,
            **kept,
        )
        state.cache = out.past_key_values
        state.logits = out.logits[0, -1]  # Shape: [vocabulary]

    def _decode_choice(
        self, decoding: _Decoding, state: _State, stop: threading.Event
    ) -> Iterator[str]:
        """Yield the text of one choice as it grows; the rest of the outcome is in `decoding`."""
        while decoding.sampled < decoding.limit:
            assert state.logits is not None  # noqa: S101 -- a prompt has at least one token
            token = decoding.sampler.pick(state.logits)
            if token in self._ends:
                decoding.finish_reason = "stop"
                break
            decoding.sampled += 1
            piece = decoding.stops.feed(decoding.text.feed(token))
            if piece:
                yield piece
            if decoding.stops.stopped:
                decoding.finish_reason = "stop"
                return
            if decoding.sampled < decoding.limit:
                self._forward(state, [token], stop)
        rest = decoding.stops.flush()
        if rest:
            yield rest


class _StoppedError(Exception):
    """The job was told to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompt:
    ids: list[int]
    text: str


@dataclass(kw_only=True, slots=True)
class _State:
    """What the model has read: its key-value cache and the logits of the next token. Mutable."""

    cache: Any
    logits: torch.Tensor | None


@dataclass(kw_only=True, slots=True)
class _Decoding:
    """One choice in the making. Mutable; of one thread."""

    sampler: Sampler
    text: Detokenizer
    stops: StopFilter
    limit: int
    sampled: int = 0
    finish_reason: str = "length"


def _unavailable(message: str, code: str) -> InternalError:
    return InternalError(message, status=503, code=code, retry_after_s=_RETRY_AFTER_S)


def _closed() -> InternalError:
    return _unavailable("The model is shutting down.", "shutting_down")


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: the generation config's and the tokenizer's."""
    ends: set[int] = set()
    for given in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if given is not None:
            ends.update(given if isinstance(given, list | tuple) else [given])
    return frozenset(ends)


def _default_sampling(model: Any) -> Sampling:
    config = model.generation_config
    if not config.do_sample:
        return Sampling()
    return Sampling(
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=config.top_k,
    )


def _context_tokens(model: Any, tokenizer: Any) -> int:
    """The length of the context window in tokens, prompt and answer together."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    # transformers says 1e30 where the tokenizer does not know.
    length = tokenizer.model_max_length
    return int(length) if 0 < length < 2**31 else _DEFAULT_CONTEXT_TOKENS
