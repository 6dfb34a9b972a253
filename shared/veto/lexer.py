"""Cut a text into the tokens the veto reads: words, numbers, code, quotations, signs.

Any text can be cut. Time is linear in it: no part of the expression backtracks over more than a
token.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Token(NamedTuple):
    """One token: what it is, as written, in lower case, and whether it touches the one before."""

    kind: str
    text: str
    low: str
    glued: bool


_TOKEN = re.compile(
    r"""
    (?P<block>```.*?```)
  | (?P<tick>`[^`\n]{1,300}`)
  | (?P<quoted>"[^"\n]{1,400}"|“[^”\n]{1,400}”|«[^»\n]{1,400}»
      |(?<!\w)'(?=\S)[^'\n]{1,200}(?<=\S)'(?!\w))
  | (?P<url>(?:https?://|www\.)[^\s"'<>]+)
  | (?P<mail>[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4})
  | (?P<flag>(?<!\S)--?[A-Za-z][\w-]{0,60}(?:=[^\s,;?]{1,80})?)
  | (?P<clang>(?i:\bc\+\+|\b[cf]\#))(?!\w)
  | (?P<date>(?<![\w-])\d{4}-\d{2}-\d{2}(?!\w)|(?<![\w/])\d{1,2}/\d{1,2}/\d{2,4}(?![\w/]))
  | (?P<clock>(?<![\w:])\d{1,2}:\d{2}(?![\d:]))
  | (?P<ratio>(?<![\w/.])\d{1,4}/\d{1,4}(?![\w/]))
  | (?P<number>\d{1,3}(?:,\d{2,3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)*|(?<![\w.])\.\d+)
  | (?P<code>[A-Za-z]*_\w+|(?<!\w)[A-Za-z]\w*_\w*
      |[A-Za-z_]\w*(?:(?:\.|::|->)[a-z_]\w+)+(?:\(\))?
      |(?<!\S)(?:~|\.{1,2})?/\w[\w./-]*|(?<!\S)\w[\w-]*/(?=\s|$|[?.,`])
      |[a-z]+[A-Z]\w*)
  | (?P<word>(?![½¼¾])[^\W\d_]+(?:['\u2019][^\W\d_]+)*[\w]*(?:['\u2019](?=\s|$))?)
  | (?P<operator>===|!==|==|!=|<=|>=|=>|->|&&|\|\||<<|>>|\*\*|\+=|-=|[<>=≤≥≠+*^~|]|!(?=[\w(]))
  | (?P<sign>\S)
    """,
    re.VERBOSE | re.DOTALL,
)


def cut(text: str) -> list[Token]:
    """The tokens of `text`, in order."""
    found: list[Token] = []
    end = -1
    for match in _TOKEN.finditer(text):
        piece = match[0]
        start = match.start()
        found.append(Token(match.lastgroup or "sign", piece, piece.lower(), start == end))
        end = match.end()
    return found
