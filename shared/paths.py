"""Which paths may be passed on: those that no server behind us reads as another one."""

from __future__ import annotations

import re

MAX_DECODINGS = 8
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_CHARACTERS = re.compile(r"[A-Za-z0-9/._~!$&'()*+,;=:@%-]+")


def is_plain(path: str) -> bool:
    r"""Whether a path, as it came, has no segment that a server might drop or climb by.

    Servers differ: some decode once more, take `\` for `/`, or cut what follows a `;`.
    """
    if not path.startswith("/") or not _CHARACTERS.fullmatch(path):
        return False
    decoded = path
    for _ in range(MAX_DECODINGS):
        segments = decoded[1:].replace("\\", "/").split("/")
        if any(segment.partition(";")[0] in ("", ".", "..") for segment in segments):
            return False
        if any(character < " " or character == "\x7f" for character in decoded):
            return False
        before, decoded = decoded, _unescaped(decoded)
        if decoded == before:
            return True
    return False


def _unescaped(path: str) -> str:
    """The path with its escapes resolved once. What is beyond ASCII is of no interest here."""
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), path)
