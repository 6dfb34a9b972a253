"""Answer and event stream, either from the other, without loss.

A streamed answer is a list of chunk objects, each with deltas; a plain one is a single object. The
cache keeps the plain one and writes the stream anew from it, so both ways must agree: whatever the
`Assembler` reads it either puts into the answer in full, or says that it could not.

How deltas add up
- Text that grows (`content`, `arguments`, …: `_GROWING`) is concatenated, lists of log
  probabilities are extended, tool calls are merged by `index`.
- Constants (`id`, `model`, `role`, …) may be repeated; the first that says something counts.
- Null and empty values say nothing: they only make a field exist.
- Everything else is unknown to us. Seen once it is kept. Seen again, a string or a list may mean
  "append" or "again", and another value may mean "replace": we do not guess, we keep the first and
  the stream is no longer lossless. (At the top of a chunk, where nothing grows, an equal value is
  a repetition.)

Invariants
1. For an answer that is `rebuildable`: assembling `chunks` and `usage_chunk` gives an equal answer.
2. Cutting a growing text at other places assembles to the same answer.
3. `chunks` never repeats a constant or a list within a choice: clients that concatenate whatever
   they see (the official ones do) arrive at the same answer.

Source: OpenAI API reference (chat.completion.chunk); `lib/streaming` of the Python client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from shared.errors import UpstreamError
from shared.json_text import dumps, is_list_of_objects
from shared.requests import Endpoint
from shared.sse import DONE_EVENT, encode_event

# Content leaves in pieces of about this many characters. All bytes of a hit arrive together, so
# more pieces would stream no sooner; but a whole answer on one line is more than some clients' line
# readers take (64 KiB is common), and those that draw chunk by chunk look better with a few.
PIECE_CHARS = 1024
# The same for answers with log probabilities, whose tokens are some 100 to 2,000 bytes each.
PIECE_TOKENS = 32

Json = dict[str, Any]

_ANSWER_OBJECT = {Endpoint.CHAT: "chat.completion", Endpoint.COMPLETIONS: "text_completion"}
_CHUNK_OBJECT = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETIONS: "text_completion"}

# Fields of a message (or part of one) that grow, delta by delta, in the order they are spoken.
_SPOKEN = ("reasoning_content", "reasoning", "content", "refusal")
_GROWING = {
    "message": frozenset(_SPOKEN),
    "function": frozenset({"arguments"}),
    "custom": frozenset({"input"}),
    "choice": frozenset({"text"}),
    "call": frozenset[str](),
}
_CALL_PARTS = ("function", "custom")
_CONSTANT = frozenset({"role", "type", "id", "finish_reason"})
# What a plain message always has, and a stream may leave unsaid.
_MESSAGE_DEFAULTS: Json = {"role": "assistant", "content": None}
# Said once for all, though not every upstream repeats them exactly (`created` may move on).
_IDENTITY = frozenset({"id", "created", "model", "system_fingerprint", "service_tier"})
# Padding against traffic analysis, meant to be thrown away; and what each form has its own of.
_IGNORED = frozenset({"object", "choices", "usage", "obfuscation"})
_LISTS = frozenset(
    {"content", "refusal", "tokens", "token_logprobs", "top_logprobs", "text_offset"}
)


class Assembler:
    """Adds up the chunks of one stream. For one stream, by one task; `feed` mutates it."""

    __slots__ = ("_calls", "_choices", "_endpoint", "_head", "_usage", "lossless")

    def __init__(self, endpoint: Endpoint) -> None:
        if endpoint not in _CHUNK_OBJECT:
            raise ValueError(f"{endpoint} has no event stream")
        self._endpoint = endpoint
        self._head: Json = {}
        self._choices: dict[int, Json] = {}
        self._calls: dict[int, dict[int, Json]] = {}  # by choice, by index
        self._usage: Any = None
        self.lossless = True

    def feed(self, chunk: Mapping[str, Any]) -> None:
        """Add one chunk object. Raises UpstreamError where it is an error or not a chunk."""
        if chunk.get("error") is not None or chunk.get("object") == "error":
            raise UpstreamError("The upstream ended its stream with an error.", code="stream_error")
        choices = chunk.get("choices")
        if choices is None:
            choices = []
        if not is_list_of_objects(choices):
            raise _malformed("choices")
        for name, value in chunk.items():
            if name in _IDENTITY:
                if not self._head.get(name):
                    self._head[name] = value
            elif name not in _IGNORED:
                self._add(self._head, name, value, repeats=True)
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        for choice in choices:
            self._feed_choice(choice)

    @property
    def complete(self) -> bool:
        """Whether every choice seen has ended, and there is one."""
        return bool(self._choices) and all(
            choice.get("finish_reason") is not None for choice in self._choices.values()
        )

    @property
    def unstorable(self) -> str | None:
        """Why the answer must not be kept: `ambiguous_delta`, `incomplete` or None."""
        if not self.lossless:
            return "ambiguous_delta"
        return None if self.complete else "incomplete"

    def answer(self) -> Json:
        """Return the plain answer so far. Inner values are the chunks' own: do not mutate."""
        head = dict(self._head)
        answer: Json = {}
        if "id" in head:
            answer["id"] = head.pop("id")
        answer["object"] = _ANSWER_OBJECT[self._endpoint]
        for name in ("created", "model"):
            if name in head:
                answer[name] = head.pop(name)
        answer["choices"] = [self._answer_choice(index) for index in sorted(self._choices)]
        if self._usage is not None:
            answer["usage"] = self._usage
        return answer | head

    def _answer_choice(self, index: int) -> Json:
        choice = dict(self._choices[index])
        if self._endpoint is Endpoint.CHAT:
            choice["message"] = _MESSAGE_DEFAULTS | choice["message"]
            calls = self._calls.get(index)
            if calls:
                choice["message"]["tool_calls"] = [calls[position] for position in sorted(calls)]
        return choice

    def _feed_choice(self, said: Json) -> None:
        index = said.get("index", 0)
        if type(index) is not int:
            raise _malformed("choices[].index")
        choice = self._choices.setdefault(index, {"index": index})
        if self._endpoint is Endpoint.CHAT:
            message = choice.setdefault("message", {})
            delta = said.get("delta")
            if delta is not None:
                if not isinstance(delta, dict):
                    raise _malformed("choices[].delta")
                self._feed_message(index, message, delta)
        for name, value in said.items():
            if name == "logprobs" and isinstance(value, dict):
                self._feed_logprobs(choice, value)
            elif name not in ("index", "delta"):
                self._add(choice, name, value, grows=name in _GROWING["choice"])

    def _feed_message(self, index: int, message: Json, delta: Json) -> None:
        for name, value in delta.items():
            if name == "tool_calls" and value:
                if not is_list_of_objects(value):
                    raise _malformed("choices[].delta.tool_calls")
                for fragment in value:
                    self._feed_call(self._calls.setdefault(index, {}), fragment)
            elif name == "function_call" and isinstance(value, dict):
                self._feed_part(message, name, value, _GROWING["function"])
            else:
                self._add(message, name, value, grows=name in _GROWING["message"])

    def _feed_call(self, calls: dict[int, Json], fragment: Json) -> None:
        position = fragment.get("index")
        if position is None:  # some upstreams send whole calls without one
            if not fragment.get("id"):
                self.lossless = False
                return
            position = len(calls)
        if type(position) is not int:
            raise _malformed("choices[].delta.tool_calls[].index")
        call = calls.setdefault(position, {})
        for name, value in fragment.items():
            if name in _CALL_PARTS and isinstance(value, dict):
                self._feed_part(call, name, value, _GROWING[name])
            elif name != "index":
                self._add(call, name, value)

    def _feed_part(self, owner: Json, name: str, said: Json, growing: frozenset[str]) -> None:
        part = owner.get(name)
        if not isinstance(part, dict):
            part = owner[name] = {}
        for field, value in said.items():
            self._add(part, field, value, grows=field in growing)

    def _feed_logprobs(self, choice: Json, said: Json) -> None:
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            logprobs = choice["logprobs"] = {}
        for name, value in said.items():
            known = logprobs.get(name)
            if name in _LISTS and isinstance(known, list) and isinstance(value, list):
                logprobs[name] = known + value
            else:
                self._add(logprobs, name, value)

    def _add(
        self, owner: Json, name: str, value: Any, *, grows: bool = False, repeats: bool = False
    ) -> None:
        known = owner.get(name)
        if _says_nothing(value):
            if known is None and (value is not None or name not in owner):
                owner[name] = value
        elif _says_nothing(known):
            owner[name] = value
        elif grows and isinstance(value, str) and isinstance(known, str):
            owner[name] = known + value
        elif value != known or (
            isinstance(value, str | list) and not repeats and name not in _CONSTANT
        ):
            self.lossless = False


def chunks(endpoint: Endpoint, answer: Mapping[str, Any]) -> list[Json]:
    """Return the chunk objects of a plain answer, without a usage chunk.

    For chat: one with the role for every choice in turn, then choice by choice what it said and its
    finish. Scalars at the top of the answer stand on every chunk, unknown objects and lists on
    the first. Raises ValueError where the answer is not one of this endpoint's.
    """
    head = _head(endpoint, answer)
    choices = answer.get("choices")
    if not is_list_of_objects(choices):
        raise _unfit("choices is not a list of objects")
    if endpoint is Endpoint.CHAT:
        spoken = [list(_chat_choices(choice)) for choice in choices]
        flat = [said[0] for said in spoken] + [part for said in spoken for part in said[1:]]
    else:
        flat = [part for choice in choices for part in _completion_choices(choice)]
    listed = [head | {"choices": [choice]} for choice in flat]
    bulky = {
        name: value
        for name, value in answer.items()
        if isinstance(value, dict | list) and name not in _IGNORED
    }
    if listed and bulky:
        listed[0] |= bulky
    return listed


def usage_chunk(endpoint: Endpoint, answer: Mapping[str, Any]) -> Json | None:
    """Return the last chunk of a stream with `include_usage`; None where the usage is not known."""
    usage = answer.get("usage")
    if usage is None:
        return None
    return _head(endpoint, answer) | {"choices": [], "usage": usage}


def event_stream(endpoint: Endpoint, answer: Mapping[str, Any], *, include_usage: bool) -> bytes:
    """Return the whole event stream of a plain answer, `data: [DONE]` included.

    With `include_usage` every other chunk says `"usage": null`, as OpenAI's do. Raises ValueError
    where the answer cannot be written (see `chunks`, `dumps`).
    """
    listed = chunks(endpoint, answer)
    if include_usage:
        listed = [chunk | {"usage": None} for chunk in listed]
        last = usage_chunk(endpoint, answer)
        if last is not None:
            listed.append(last)
    return b"".join([encode_event(dumps(chunk)) for chunk in listed]) + DONE_EVENT


def rebuildable(endpoint: Endpoint, answer: Mapping[str, Any]) -> bool:
    """Whether the event stream of `answer` says all that `answer` says.

    Equal count: a null `usage` and none, a tool call with and without its position, a message with
    and without the role `assistant` or a null `content`.
    """
    assembler = Assembler(endpoint)
    try:
        for chunk in chunks(endpoint, answer):
            assembler.feed(chunk)
    except (ValueError, UpstreamError):
        return False
    last = usage_chunk(endpoint, answer)
    if last is not None:
        assembler.feed(last)
    return assembler.lossless and assembler.answer() == _plain(answer)


def _plain(answer: Mapping[str, Any]) -> Json:
    plain = dict(answer)
    if plain.get("usage") is None:
        plain.pop("usage", None)
    plain["choices"] = [_plain_choice(choice) for choice in plain["choices"]]
    return plain


def _plain_choice(choice: Json) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        return choice
    message = _MESSAGE_DEFAULTS | message
    if message.get("tool_calls"):
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index" or value != position}
            for position, call in enumerate(message["tool_calls"])
        ]
    return choice | {"message": message}


def _head(endpoint: Endpoint, answer: Mapping[str, Any]) -> Json:
    head: Json = {}
    if "id" in answer:
        head["id"] = answer["id"]
    head["object"] = _CHUNK_OBJECT[endpoint]
    for name, value in answer.items():
        if name not in _IGNORED and not isinstance(value, dict | list):
            head[name] = value
    return head


def _chat_choices(choice: Json) -> Iterator[Json]:
    """Yield the choices of a chat answer's chunks: role first, finish last."""
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _unfit("a choice has no message")
    logprobs = choice.get("logprobs")
    index = choice.get("index", 0)

    def said(delta: Json, tokens: Json | None = None) -> Json:
        part: Json = {"index": index, "delta": delta}
        if "logprobs" in choice:
            part["logprobs"] = tokens
        part["finish_reason"] = None
        return part

    opening: Json = {}
    for name, value in message.items():
        if name in _SPOKEN and isinstance(value, str):
            opening[name] = ""
        elif not (name in ("tool_calls", "function_call") and value):
            opening[name] = value
    # Every list of log probabilities exists from here on, and grows with its text.
    empty = None
    if isinstance(logprobs, dict):
        empty = {
            name: [] if name in _LISTS and isinstance(value, list) else value
            for name, value in logprobs.items()
        }
    yield said(opening, empty)
    for name in _SPOKEN:
        text = message.get(name)
        tokens = logprobs.get(name) if isinstance(logprobs, dict) and name in _LISTS else None
        if not isinstance(text, str):
            text = ""
        for piece, some in _paired(text, tokens):
            carried = dict.fromkeys(empty or ()) | {name: some} if some else None
            yield said({name: piece} if piece else {}, carried)
    called = message.get("function_call")
    if called:
        for part in _called(called, "arguments"):
            yield said({"function_call": part})
    calls = message.get("tool_calls")
    if calls:
        if not is_list_of_objects(calls):
            raise _unfit("tool_calls is not a list of objects")
        for position, call in enumerate(calls):
            for fragment in _fragments(call):
                yield said({"tool_calls": [{"index": position} | fragment]})
    rest = {name: value for name, value in choice.items() if name not in ("message", "logprobs")}
    yield said({}) | rest


def _fragments(call: Json) -> Iterator[Json]:
    """Yield a tool call as deltas: everything but its growing text, then that."""
    opening: Json = {}
    growing: list[Json] = []
    for name, value in call.items():
        if name in _CALL_PARTS and isinstance(value, dict):
            (field,) = _GROWING[name]
            opening[name], *more = _called(value, field)
            growing += [{name: part} for part in more]
        elif name != "index":
            opening[name] = value
    yield opening
    yield from growing


def _called(part: Any, field: str) -> Iterator[Json]:
    """Yield a function call as deltas: its name with empty arguments, then the arguments."""
    if not isinstance(part, dict):
        raise _unfit("a function call is not an object")
    text = part.get(field)
    if not isinstance(text, str):
        yield dict(part)
        return
    yield part | {field: ""}
    for piece in _pieces(text):
        yield {field: piece}


def _completion_choices(choice: Json) -> Iterator[Json]:
    """Yield the choices of a legacy completion's chunks: text, then the finish."""
    text = choice.get("text")
    if not isinstance(text, str):
        raise _unfit("a choice has no text")
    index = choice.get("index", 0)
    logprobs = choice.get("logprobs")
    pairs: list[tuple[str, Json | None]]
    if isinstance(logprobs, dict):
        pairs = _parallel(text, logprobs)
    else:
        pairs = [(piece, None) for piece in _pieces(text)]
    for piece, some in pairs:
        part: Json = {"index": index, "text": piece}
        if "logprobs" in choice:
            part["logprobs"] = some
        yield part | {"finish_reason": None}
    rest = {name: value for name, value in choice.items() if name not in ("text", "logprobs")}
    nothing = {"logprobs": None} if "logprobs" in choice else {}
    yield {"index": index, "text": ""} | nothing | rest


def _pieces(text: str) -> list[str]:
    """Cut a text into pieces of at most `PIECE_CHARS`, after a space where there is one."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = text.rfind(" ", start, start + PIECE_CHARS) + 1 or start + PIECE_CHARS
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def _paired(text: str, tokens: Any) -> list[tuple[str, list[Any] | None]]:
    """Cut a text with the log probabilities of its tokens, each piece with its own.

    Where the tokens are not the text (one can be half a character) they go with its first piece.
    """
    if not isinstance(tokens, list) or not tokens:
        return [(piece, None) for piece in _pieces(text)]
    words = [token.get("token") if isinstance(token, dict) else None for token in tokens]
    if _are_words(words, text):
        return [
            ("".join(words[start : start + PIECE_TOKENS]), tokens[start : start + PIECE_TOKENS])
            for start in range(0, len(tokens), PIECE_TOKENS)
        ]
    first, *rest = _pieces(text) or [""]
    return [(first, tokens), *((piece, None) for piece in rest)]


def _parallel(text: str, logprobs: Json) -> list[tuple[str, Json | None]]:
    """Cut a legacy completion with its parallel lists; in one piece where they are not parallel."""
    words = logprobs.get("tokens")
    if (
        not words
        or not _are_words(words, text)
        or not all(
            value is None
            or (name in _LISTS and isinstance(value, list) and len(value) == len(words))
            for name, value in logprobs.items()
        )
    ):
        return [(text, logprobs)]
    return [
        (
            "".join(words[start : start + PIECE_TOKENS]),
            {
                name: value and value[start : start + PIECE_TOKENS]
                for name, value in logprobs.items()
            },
        )
        for start in range(0, len(words), PIECE_TOKENS)
    ]


def _are_words(words: Any, text: str) -> TypeGuard[list[str]]:
    """Whether these are strings that make up the text."""
    return (
        isinstance(words, list)
        and all(isinstance(word, str) for word in words)
        and "".join(words) == text
    )


def _says_nothing(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _unfit(why: str) -> ValueError:
    return ValueError(f"not an answer: {why}")


def _malformed(field: str) -> UpstreamError:
    return UpstreamError(
        f"The upstream sent a chunk with a malformed '{field}'.", code="malformed_chunk"
    )
