"""How a question is typed: greetings, please, contractions, case, stops, slips of the hand.

Nothing here changes what is asked.
"""

import random
import re
from typing import Final

_VOWEL: Final = (
    r"(?:[aioAIO](?!ne\b|nce\b)|[eE](?!u)|[uU](?:n(?!i)|[mpgl]|r(?!i)|s(?=h))|uninst|hour|honest"
    r"|MRI|MBA|LLC|SQL|HTML|XML|SSD|FAQ|NDA|R\b|8|11\b|18)"
)
_ASKING_TEXT: Final = (
    "what what's which who whom whose when where why how is are am was were do does did can could "
    "should would will has have had may might"
)
_ASKING: Final = frozenset(_ASKING_TEXT.split())
_REQUESTS_TEXT: Final = (
    "write translate summarize summarise list convert calculate compute rewrite generate create "
    "draft fix refactor explain give tell find analyze analyse compare describe recommend suggest "
    "define show solve proofread classify extract review optimize design plan make compose"
)
_REQUESTS: Final = frozenset(_REQUESTS_TEXT.split())
_OPENERS: Final = (
    "Hi, ", "Hello, ", "Hey, ", "Quick question: ", "Question: ", "Just wondering, ", "Hi there! ",
    "Sorry if this is basic, but ", "I was wondering: ", "Help please: ", "So ", "Ok so ",
    "Good morning, ", "Hey guys, ", "Dumb question, but ",
)  # fmt: skip
_CLOSERS: Final = (
    " Thanks!", " Thanks in advance.", " Thank you", " Please help.", " Any ideas?", " pls",
    " Thx", " Please advise.", " I'd appreciate any help.",
)  # fmt: skip
_CONTRACTIONS: Final = (
    ("What is", "What's"), ("what is", "what's"), ("I am", "I'm"), ("do not", "don't"),
    ("does not", "doesn't"), ("cannot", "can't"), ("is not", "isn't"),
    ("I would", "I'd"), ("will not", "won't"), ("it is", "it's"), ("did not", "didn't"),
    ("should not", "shouldn't"), ("Who is", "Who's"), ("How is", "How's"), ("are not", "aren't"),
)  # fmt: skip


def typed(text: str, rng: random.Random, *, noise: float) -> str:
    """The text as somebody may type it; `noise` (0 to 1) says how far from the plain one."""
    text = article(re.sub(r"\s+([,.?!:;])", r"\1", re.sub(r"\s+", " ", text)).strip())
    text = text[0].upper() + text[1:]
    if rng.random() < 0.5 * noise:
        text = _contracted(text, rng)
    text = _stopped(text, rng, noise)
    if rng.random() < 0.22 * noise:
        text = _polite(text, rng)
    if rng.random() < 0.03 * noise:
        text = _slip(text, rng)
    if rng.random() < 0.3 * noise:
        text = _lowered(text, rng)
    return text


def article(text: str) -> str:
    """The text with `a` and `an` as the next word asks for."""
    text = re.sub(rf"(\ba|^A)n? (?={_VOWEL})", r"\1n ", text)
    return re.sub(rf"(\ba|^A)n (?!{_VOWEL})", r"\1 ", text)


def _contracted(text: str, rng: random.Random) -> str:
    for long, short in _CONTRACTIONS:
        if re.search(rf"\b{re.escape(long)}\b", text):
            text = re.sub(rf"\b{re.escape(long)}\b", short, text)
        elif rng.random() < 0.5:
            text = re.sub(rf"\b{re.escape(short)}\b", long, text)
    return text


def _stopped(text: str, rng: random.Random, noise: float) -> str:
    if text[-1] in '.?!"`':
        return text
    last_part = re.split(r"[.:,] ", text)[-1]
    asking = not {_first(last_part), _first(text)}.isdisjoint(_ASKING)
    if rng.random() < 0.25 * noise:
        return text
    return text + ("?" if asking else rng.choice([".", ""]))


def _polite(text: str, rng: random.Random) -> str:
    first = _first(text)
    lowered = _uncapitalised(text)
    if first in _REQUESTS and text.split()[1:2] != ["of"]:
        lead = rng.choice(["Please ", "Can you ", "Could you please ", "I need you to ", "pls ",
                           "I'd like you to ", "Kindly "])  # fmt: skip
        if lead.startswith(("Can", "Could")):
            lowered = lowered.rstrip(".") + "?"
        return lead + lowered
    if rng.random() < 0.6:
        opener = rng.choice(_OPENERS)
        return opener + (text if opener[-2] in ":!" else lowered)
    return text + (rng.choice(_CLOSERS) if text[-1] in ".?!" else "." + rng.choice(_CLOSERS))


def _first(text: str) -> str:
    """The first word in lower case, or the empty string."""
    return text.lower().partition(" ")[0]


def _lowered(text: str, rng: random.Random) -> str:
    if rng.random() < 0.25:
        return _uncapitalised(text)
    return " ".join(word if _keeps_case(word) else word.lower() for word in text.split(" "))


def _uncapitalised(text: str) -> str:
    """The text without its capital, but for `I` and abbreviations."""
    return text if text[:2] in {"I ", "I'"} or text[:2].isupper() else text[0].lower() + text[1:]


def _keeps_case(word: str) -> bool:
    """Whether case means something: codes, amounts, identifiers, code."""
    return bool(re.search(r"[\d_`()=$€£]", word))


def _slip(text: str, rng: random.Random) -> str:
    """One letter doubled, dropped or swapped inside a long, plain word."""
    places = list(re.finditer(r"(?<![\w$#])[a-z]{6,}(?![\w(])", text))
    if not places:
        return text
    place = rng.choice(places)
    at = rng.randrange(place.start() + 1, place.end() - 2)
    before, pair, after = text[:at], text[at : at + 2], text[at + 2 :]
    return before + rng.choice([pair[::-1], pair[0], pair[0] * 2 + pair[1]]) + after
