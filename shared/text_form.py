"""The `text` profile: one form for spellings of a text that ask the same in the same words.

What is folded, in prose only:
- space around the text, and runs of spaces (one between two digits stays);
- letters with separate accents, ligatures within words, full-width words, typographic apostrophes;
- polite words that open or close the text: greetings, "please", "could you please", ", thanks";
- the case of the first word, where it is one of those that open questions and instructions. No
  other case: "US" is not "us", "Polish" not "polish", and a lower-case name may be another word;
- one full stop behind the last word.

What is never touched: anything from the first quotation mark, backtick, bracket, line break, tab or
colon on (up to the last of balanced quotations; all the rest where they are not), question and
exclamation marks, numbers, anything with a digit or a sign in it. A text that asks about text
(spelling, letters, politeness, …) stays whole. One that has material in it (translate, rewrite, …)
keeps its end.

Invariants
1. In doubt a text stays as it is: a miss costs a generation, a merge gives a wrong answer.
2. The form of a form is the form: rules are applied until none has anything to do.
3. Time is linear in the text for each pass, and long texts are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from shared.slots import word_list

MAX_CHARACTERS = 8_192


def text_form(text: str, *, continued: bool = False) -> str:
    """The form of `text`, `text` itself where nothing is to be folded.

    `continued`: an answer goes on where the text ends (completions), so its end stays.
    """
    if len(text) > MAX_CHARACTERS or _about_text().search(text):
        return text
    while True:
        before = text
        text = _opened(text, continued=continued)
        text = _folded(text, continued=continued)
        if text == before:
            return text


def bare_request(text: str) -> str:
    """The form of `text` without polite words behind a colon, for whoever knows what stands there.

    Where the request was put as "can you …", the question mark at its end goes too.
    """
    polite = _opening().match(text.lstrip(_SPACES))
    shorter = _closing().sub("", text_form(text))
    return shorter.removesuffix("?") if polite is not None and polite["asked"] else shorter


def about_form(text: str) -> bool:
    """Whether instructions make the spelling of another text matter: proofread, translate, …."""
    return _about_form().search(text) is not None


_QUESTIONS = word_list("""
    am are can could did do does had has have how is shall should was were what when where which
    who whom whose why would""")
_INSTRUCTIONS = word_list("""
    analyse analyze appraise assess brainstorm calculate check classify compare compute convert
    create define describe develop discuss estimate evaluate explain extract find generate give
    help identify outline provide recommend review show solve suggest summarise summarize tell
    translate underwrite write""")
_OTHERS = word_list("an in on the there this these those my our you your")
# After these a bare "can you" asks for the thing, hardly whether it is possible.
_REQUESTS = r"(?:explain|tell me|give me|show me|help me)"
_REQUESTS_OF = r"(?:analy[sz]e|list|outline|summari[sz]e)"
_DETERMINERS = r"(?:the|this|that|these|those|my|our|how|why|what|when|where|which|who)"
_CODE = r"=<>{}\[\]|;\\~^*"
# Classes are spelt out, never Unicode's: edge and origin may run versions of Python that know
# different characters, and must agree on every key.
_LETTER = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_SPACES = " \t\r\n\xa0"


@cache
def _opening() -> re.Pattern[str]:
    """Polite words at the beginning, if a question or instruction follows them."""
    opener = rf"(?:{'|'.join(_either(word) for word in _QUESTIONS + _INSTRUCTIONS)}){_WORD_END}"
    instruction = rf"(?:{'|'.join(_either(word) for word in _INSTRUCTIONS)}|list|make){_WORD_END}"
    you = r"(?:[Cc]an|[Cc]ould|[Ww]ould|[Ww]ill) you"
    return re.compile(
        rf"(?:(?:[Hh]i|[Hh]ello|[Hh]ey)(?: there)?[,!.] +(?=(?:[Pp]lease,? +)?{opener}))?+"
        rf"(?:[Pp]lease,? +(?={opener}|list |make |don't |do not ))?+"
        rf"(?P<asked>{you} +(?:please|kindly) +(?={instruction})"
        rf"|(?:[Cc]an|[Cc]ould) you +(?={_REQUESTS}{_WORD_END}"
        rf"|{_REQUESTS_OF} +{_DETERMINERS}{_WORD_END}))?+"
    )


# The word, not a variable of that name: no sign of code behind it.
_WORD_END = rf"(?:(?=[,:]|[ ]+(?![ +\-{_CODE}]))|\Z)"


@cache
def _opener() -> re.Pattern[str]:
    """A capitalised first word whose case says nothing but that it is the first."""
    plain = (word for word in _QUESTIONS + _INSTRUCTIONS + _OTHERS if word != "can")
    openers = "|".join(word.capitalize() for word in plain)
    return re.compile(
        rf"(?:{openers})(?:['\u2019](?:s|re))?{_WORD_END}"
        r"|(?:List|Make)(?= (?:a|all|an|me|my|some|the|this|[0-9]+) )"
        r"|Can(?= (?:I|a|an|anyone|he|i|it|my|people|she|someone|the|they|this|we|you) )"
    )


@cache
def _about_text() -> re.Pattern[str]:
    """Words of a text for which its own spelling may matter."""
    return re.compile(
        r"\b(?:punctuat\w*|capitali[sz]\w*|capital letters?|(?:upper|lower|title|camel|snake)[ -]?"
        r"case\w*|case[ -]\w*sensitiv\w*|(?:mis)?spel(?:l\w*|t)|gramma\w*|typos?|proof-?read\w*"
        r"|characters?|letters? (?:in|of|are|do|does)|(?:first|last) letter|white ?spaces?|spaces"
        r"|commas?|full stops?|apostrophes?|hyphens?|quotation|symbols?|glyphs?|fonts?|ligatures?"
        r"|diacritic\w*|accents?|unicode|ascii|utf|emojis?|reg(?:ular )?ex\w*|verbatim|literal\w*"
        r"|repeat\w*|echo\w*|(?:im)?polite\w*|rude\w*|greeting\w*|tone of"
        r"|hash(?:es|ed|ing)?|md5|sha-?[0-9]+|base ?64|encod\w*|decod\w*|cipher\w*|encrypt\w*"
        r"|revers\w*|palindrom\w*|anagram\w*|count(?:s|ed|ing)?|syllabl\w*|rhym\w*|acrostic\w*|haikus?"
        r"|pronounc\w*|this (?:sentence|question|message|prompt|phrase|request)"
        r"|(?:first|last) (?:word|sentence))\b",
        re.ASCII | re.IGNORECASE,
    )


@cache
def _about_form() -> re.Pattern[str]:
    """Words of other messages for which the spelling of the last one may matter."""
    return re.compile(
        r"\b(?:punctuat|capitali[sz]|(?:upper|lower|title)[ -]?case|case[ -]sensitiv|(?:mis)?spell"
        r"|gramma|typo|proof-?read|verbatim|repeat (?:after|back|the|what)|transl[ai]t|rewrit"
        r"|rephras|paraphras)",
        re.ASCII | re.IGNORECASE,
    )


@cache
def _with_material() -> re.Pattern[str]:
    """Words that are followed by material without quotation marks, up to the end."""
    return re.compile(
        r"\b(?:translat\w*|rewrit\w*|rewrote|re-?phras\w*|paraphras\w*|correct\w*|edit\w*|fix\w*"
        r"|improv\w*|continu\w*|complet\w*|finish\w*|sa(?:y|ys|ying|id)|mean(?:s|ing|t)?|word\w*"
        r"|call(?:s|ed)?|term\w*|sentenc\w*|phras\w*|titl\w*|nam(?:e|ed|es)|string\w*|append\w*"
        r"|respond\w*|repl(?:y|ies)|answer\w*|output\w*|print\w*)\b",
        re.ASCII | re.IGNORECASE,
    )


@cache
def _special() -> re.Pattern[str]:
    """What begins a part that stays: quotations, code, lines, and what a colon introduces."""
    return re.compile(
        r"[\"\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2039\u203a\u300a-\u300f\u2018\u201a\u201b`]"
        rf"|(?<![{_LETTER}])['\u2019]|['\u2019](?![{_LETTER}])|:(?![^ \xa0])"
        rf"|(?P<code>[{_CODE}_\t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]|[{_LETTER}0-9)\]]\()"
    )


@cache
def _quotation() -> re.Pattern[str]:
    """A quotation or inline code that ends where it should."""
    return re.compile(
        r"(?<!`)(?P<ticks>`++)[^`]+(?P=ticks)(?!`)|\"[^\"\n]*\"|\u201c[^\u201c\u201d\n]*\u201d"
        r"|\u201e[^\u201e\u201c\u201d\n]*[\u201c\u201d]|\u00ab[^\u00ab\u00bb\n]*\u00bb"
        r"|\u2039[^\u2039\u203a\n]*\u203a|\u300c[^\u300c\u300d\n]*\u300d"
        r"|\u300e[^\u300e\u300f\n]*\u300f|\u300a[^\u300a\u300b\n]*\u300b"
    )


@cache
def _closing() -> re.Pattern[str]:
    """Polite words at the end, behind a comma or a sentence."""
    thanks = r"(?:[Tt]hanks|[Tt]hank you|[Tt]hx)(?: in advance| so much| very much| a lot)?"
    return re.compile(rf"(?:, *[Pp]lease(?=[.?]?\Z)|(?:,|(?<=[.?!])) +{thanks}[.!]?\Z)")


def _either(word: str) -> str:
    return f"[{word[0].upper()}{word[0]}]{word[1:]}"


def _opened(text: str, *, continued: bool) -> str:
    """`text` without polite words at its beginning, and its first word in lower case."""
    # Indentation of a first line has its meaning beside that of others.
    text = text.lstrip("\r\n" if "\n" in text.strip(_SPACES) else _SPACES)
    polite = _opening().match(text)
    if polite is not None and polite.end():
        text = text[polite.end() :]
        if polite["asked"] and not continued:
            text = _as_instruction(text)
    return text[0].lower() + text[1:] if _opener().match(text) else text


def _as_instruction(text: str) -> str:
    """What followed "can you": its question mark went with those words."""
    head, kept, tail = _parts(text)
    for start, end in ((0, len(head)), (len(head) + len(kept), len(text) if tail else 0)):
        stop = re.compile(r"[.?!]").search(text, start, end)
        while stop is not None and text[stop.end() : stop.end() + 1] not in {"", *_SPACES}:
            stop = re.compile(r"[.?!]").search(text, stop.end(), end)
        if stop is not None:
            if stop[0] != "?":
                return text
            rest = text[stop.end() :]
            return text[: stop.start()] + (f".{rest}" if rest.strip(_SPACES) else "")
    return text


def _folded(text: str, *, continued: bool) -> str:
    head, kept, tail = _parts(text)
    head = _spaced(head)
    if not kept:
        return head if continued else _closed(head, text)
    if not continued:
        if tail is not None:
            tail = _closed(_spaced(tail), text)
        elif kept.count("`") % 2 == 0:
            kept = kept.rstrip(_SPACES)
    return head + kept + (tail or "")


def _parts(text: str) -> tuple[str, str, str | None]:
    """Prose, what stays as it is, and the prose behind it: None where all the rest stays.

    Where code or a second line comes first, what stands before it may be part of it: all stays.
    """
    first = _special().search(text)
    if first is None:
        return text, "", None
    start = 0 if first["code"] else first.start()
    quotations = list(_quotation().finditer(text, start))
    outside, place = [], start
    for quotation in quotations:
        outside.append(text[place : quotation.start()])
        place = quotation.end()
    outside.append(text[place:])
    if not quotations or any(_special().search(part) for part in outside):
        return text[:start], text[start:], None
    return text[:start], text[start:place], text[place:]


def _spaced(prose: str) -> str:
    """`prose` with single spaces and composed letters."""
    prose = _gaps().sub(" ", prose)
    if prose.isascii():
        return prose
    prose = _accented().sub(lambda found: unicodedata.normalize("NFC", found[0]), prose)
    prose = _compatible().sub(lambda found: unicodedata.normalize("NFKC", found[0]), prose)
    return _apostrophe().sub("'", prose)


def _closed(prose: str, text: str) -> str:
    """`prose`, the end of `text`, without space, polite words and a full stop at its end."""
    prose = prose.rstrip(_SPACES)
    if _with_material().search(text):
        return prose
    shorter = _closing().sub("", prose)
    if _full_stop().search(shorter):
        shorter = shorter[:-1]
    return shorter if shorter or prose == "." else prose


@cache
def _gaps() -> re.Pattern[str]:
    """Runs of spaces that are not between two digits, or signs that may be digits."""
    digit = r"0-9\u0250-\U0010ffff"
    return re.compile(
        rf"(?<![{digit} \xa0])[ \xa0]+|(?<=[{digit}])[ \xa0]++(?![{digit}])",
    )


@cache
def _accented() -> re.Pattern[str]:
    """A letter and the accents that follow it. Signs of their own (the ohm's) stay."""
    return re.compile(r"[A-Za-z][\u0300-\u036f]+")


@cache
def _compatible() -> re.Pattern[str]:
    """Ligatures within words and full-width words; a single letter may be what is asked about."""
    return re.compile(
        r"(?<=[A-Za-z])[\ufb00-\ufb06]|[\ufb00-\ufb06](?=[A-Za-z])"
        r"|[\uff21-\uff3a\uff41-\uff5a]{3,}"
    )


@cache
def _apostrophe() -> re.Pattern[str]:
    return re.compile(rf"(?<=[{_LETTER}])\u2019(?=[{_LETTER}])")


@cache
def _full_stop() -> re.Pattern[str]:
    """A full stop behind a plain word, or behind a quotation and nothing else."""
    word = rf"[{_LETTER}]+(?:['-][{_LETTER}]+)*"
    return re.compile(rf"(?:(?:\A|(?<=[ \xa0(])){word}\)?|\A)\.\Z")
