"""From tokens to text that may be shown: whole characters only, and nothing of a stop string.

Pure: knows no model and no request. Both classes are used by one thread, for one choice.

Invariants
1. What `Detokenizer` and `StopFilter` have given out is a prefix of the final text, whatever the
   tokens' boundaries: nothing is taken back, no character is shown in half.
2. No stop string occurs in what `StopFilter` gives out, and nothing after one is given out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

# A character of UTF-8 has at most four bytes, so at most three of one can be waiting. Decoders show
# them as one to three of these; one that falls back to bytes shows the whole characters before them
# in pieces again, so that nothing is certain before the fourth token.
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_MAX_WAITING: Final = 3


class Detokenizer:
    """Decodes tokens one at a time. Mutable; one per choice.

    `decode` maps token ids to text. It is called on a short window, with the tokens before as
    context: decoders that strip a leading space or join words see the same neighbours as in full.
    `context` holds the last tokens of the prompt where the text continues it.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, context: Sequence[int] = ()
    ) -> None:
        self._decode = decode
        self._window = list(context)
        self._settled = len(self._window)  # tokens of the window whose text has been given out
        self._shown = len(decode(self._window)) if self._window else 0  # characters of the window

    def feed(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_REPLACEMENT) and len(self._window) - self._settled <= _MAX_WAITING:
            return ""
        whole = _without_waiting(text)
        new = whole[self._shown :]
        if len(whole) == len(text):
            self._window = self._window[self._settled :]
            self._settled = len(self._window)
            self._shown = len(self._decode(self._window))
        else:
            self._shown = max(self._shown, len(whole))
        return new


class StopFilter:
    """Cuts text before the first stop string to be completed. Mutable; one per choice.

    `stopped` turns true when one was met; feed nothing after that.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What may be shown now. Text that could begin a stop string is held back."""
        if not self._stops:
            return text
        text = self._held + text
        # The match that ends first wins, the longer of two that end together: what is shown does
        # not depend on how the text was cut into tokens.
        matches = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if matches:
            self.stopped, self._held = True, ""
            return text[: min(matches)[1]]
        held = max(_overlap(text, stop) for stop in self._stops)
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _without_waiting(text: str) -> str:
    """`text` without the replacement characters at its end that more bytes could still change."""
    waiting = 0
    while waiting < _MAX_WAITING and text[len(text) - waiting - 1 : len(text) - waiting] == (
        _REPLACEMENT
    ):
        waiting += 1
    return text[: len(text) - waiting]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins, but does not complete, `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
