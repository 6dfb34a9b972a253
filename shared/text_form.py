"""The `text` profile: one form for spellings of a text that ask the same in the same words.

What is folded, in prose only:
- space around the text, and runs of spaces (one between two digits stays);
- letters with separate accents, ligatures within words, full-width words, typographic apostrophes;
- polite words that open or close the text: greetings, "please", "could you please", ", thanks";
- the case of the first word, where it is one of those that open questions and instructions. No
  other case: "US" is not "us", "Polish" not "polish", and a lower-case name may be another word;
- one full stop behind the last word.

What is never touched: quotations and code in backticks; all that follows a colon, a quotation that
does not end, a line break, a tab or a sign of code, and the space before the latter three; question
and exclamation marks (but for that of a "can you …?"), numbers, words with a digit or sign in them.
A text that asks about text (spelling, letters, politeness, …) stays whole, and one that may end in
material (translate, rewrite, …) keeps its end.

Invariants
1. In doubt a text stays as it is: a miss costs a generation, a merge gives a wrong answer.
2. The form of a form is the form: rules are applied until none has anything to do.
3. Time is linear in the text: passes are few, and long texts are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from shared.slots import word_list

MAX_CHARACTERS = 8_192


def text_form(text: str) -> str:
    """The form of `text`, `text` itself where nothing is to be folded."""
    return _settled(text, lambda each: _folded(_opened(each)))


def continued_form(text: str) -> str:
    """The form of a text that an answer goes on with: spaces and letters within it, no more.

    It is a beginning, not a request: what it opens with belongs to it, and its end stays as it is.
    """
    return _settled(text, _folded_within)


def bare_request(text: str, form: str) -> str:
    """The form of `text` without polite words behind a colon, for whoever knows what stands there.

    Where the request was put as "can you …", the question mark at its end goes too.
    """
    polite = _opening().match(text.lstrip(_SPACES))
    end = _closing().search(form, max(0, len(form) - _END_CHARACTERS))
    shorter = form if end is None else form[: end.start()]
    return shorter.removesuffix("?") if polite is not None and polite["asked"] else shorter


def about_form(text: str) -> bool:
    """Whether instructions make the spelling of another text matter: proofread, translate, …."""
    return _about_form().search(text.lower()) is not None


_QUESTIONS = word_list("how what when where which who whom whose why")
_AUXILIARIES = word_list("""
    am are could did do does had has have is shall should was were would""")
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
_END_CHARACTERS = 80
_MAX_PASSES = 8
_SPACES = " \t\r\n\xa0"


@cache
def _opening() -> re.Pattern[str]:
    """Polite words at the beginning, if a question or instruction follows them."""
    instruction = rf"(?:{'|'.join(map(_either, _INSTRUCTIONS))}|list|make){_WORD_END}"
    request = (
        rf"(?:{'|'.join(map(_either, _QUESTIONS))}|[Dd]on't|[Dd]o not|(?:[Cc]an|[Cc]ould) you)"
        rf"{_WORD_END}|{instruction}"
    )
    auxiliary = rf"(?:[Cc]an|{'|'.join(map(_either, _AUXILIARIES))}){_WORD_END}"
    return re.compile(
        rf"(?:(?:[Hh]i|[Hh]ello|[Hh]ey)(?: there)?[,!.] +(?=[Pp]lease,? |{request}|{auxiliary}))?+"
        rf"(?:[Pp]lease,? +(?={request}))?+"
        rf"(?P<asked>(?:[Cc]an|[Cc]ould|[Ww]ould|[Ww]ill) you +(?:please|kindly) +(?={instruction})"
        rf"|(?:[Cc]an|[Cc]ould) you +(?={_REQUESTS}{_WORD_END}"
        rf"|{_REQUESTS_OF} +{_DETERMINERS}{_WORD_END}))?+"
    )


# The word, not a variable of that name: no sign of code behind it.
_WORD_END = rf"(?:(?=[,:]|[ ]+(?![ +\-{_CODE}]))|\Z)"


@cache
def _opener() -> re.Pattern[str]:
    """A capitalised first word whose case says nothing but that it is the first."""
    words = _QUESTIONS + _AUXILIARIES + _INSTRUCTIONS + _OTHERS
    openers = "|".join(word.capitalize() for word in words)
    return re.compile(
        rf"(?:{openers})(?:['\u2019](?:s|re))?{_WORD_END}"
        r"|(?:List|Make)(?= (?:a|all|an|me|my|some|the|this|[0-9]+) )"
        r"|Can(?= (?:I|a|an|anyone|he|i|it|my|people|she|someone|the|they|this|we|you) )"
    )


@cache
def _about_text() -> re.Pattern[str]:
    """Words of a text for which its own spelling may matter."""
    return re.compile(
        r"(?<![a-z])(?:punctuat\w*|capitali[sz]\w*|capital letters?|"
        r"(?:upper|lower|title|camel|snake)[ -]?case\w*|case[ -]\w*sensitiv\w*|gramma\w*|typos?"
        r"|(?:mis)?spel(?:l\w*|t)|proof-?read\w*"
        r"|characters?|letters? (?:in|of|are|do|does)|(?:first|last) letter|white ?spaces?|spaces"
        r"|commas?|full stops?|apostrophes?|hyphens?|quotation|symbols?|glyphs?|fonts?|ligatures?"
        r"|diacritic\w*|accents?|unicode|ascii|utf|emojis?|reg(?:ular )?ex\w*|verbatim|literal\w*"
        r"|repeat\w*|echo\w*|(?:im)?polite\w*|rude\w*|greeting\w*|tone of"
        r"|hash(?:es|ed|ing)?|md5|sha-?[0-9]+|base ?64|encod\w*|decod\w*|cipher\w*|encrypt\w*"
        r"|revers\w*|palindrom\w*|anagram\w*|count(?:s|ed|ing)?|syllabl\w*|rhym\w*|acrostic\w*"
        r"|haikus?|pronounc\w*|this (?:sentence|question|message|prompt|phrase|request)"
        r"|(?:first|last) (?:word|sentence))\b",
        re.ASCII,
    )


@cache
def _about_form() -> re.Pattern[str]:
    """Words of other messages for which the spelling of the last one may matter."""
    return re.compile(
        r"(?<![a-z])(?:punctuat|capitali[sz]|(?:upper|lower|title)[ -]?case|case[ -]sensitiv"
        r"|(?:mis)?spell|gramma|typo|proof-?read|verbatim|repeat (?:after|back|the|what)"
        r"|transl[ai]t|rewrit|rephras|paraphras)",
        re.ASCII,
    )


@cache
def _with_material() -> re.Pattern[str]:
    """Words that are followed by material without quotation marks, up to the end."""
    return re.compile(
        r"(?<![a-z])(?:translat\w*|rewrit\w*|rewrote|re-?phras\w*|paraphras\w*|correct\w*|edit\w*"
        r"|fix\w*|improv\w*|continu\w*|complet\w*|finish\w*|sa(?:y|ys|ying|id)|mean(?:s|ing|t)?|word\w*"
        r"|call(?:s|ed)?|term\w*|sentenc\w*|phras\w*|titl\w*|nam(?:e|ed|es)|string\w*|append\w*"
        r"|respond\w*|repl(?:y|ies)|answer\w*|output\w*|print\w*)\b",
        re.ASCII,
    )


@cache
def _special() -> re.Pattern[str]:
    """What begins a part that stays: quotations, code, lines, and what a colon introduces."""
    quotes = (
        r"\"\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u2039\u203a\u300a-\u300f\u2018\u201a\u201b`"
    )
    code = rf"{_CODE}_\t\n\r\v\f\x1c-\x1f\x85\u2028\u2029"
    # One set of characters first: that is what the search is fast at.
    return re.compile(
        rf"['\u2019:({quotes}{code}](?:(?<=[{quotes}])|(?<=:)(?![^ \xa0])"
        rf"|(?<=['\u2019])(?:(?<![{_LETTER}]['\u2019])|(?![{_LETTER}]))"
        rf"|(?P<code>(?<=[{code}])|(?<=[{_LETTER}0-9)\]]\()))"
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


def _opened(text: str) -> str:
    """`text` without polite words at its beginning, and its first word in lower case."""
    # Indentation of a first line has its meaning beside that of others.
    text = text.lstrip("\r\n" if "\n" in text.strip(_SPACES) else _SPACES)
    polite = _opening().match(text)
    if polite is not None and polite.end():
        text = text[polite.end() :]
        if polite["asked"]:
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


def _settled(text: str, fold: Callable[[str], str]) -> str:
    """`text` folded until nothing is left to fold; `text` itself where that takes too long."""
    if len(text) > MAX_CHARACTERS or _about_text().search(text.lower()):
        return text
    before = text
    for _ in range(_MAX_PASSES):
        folded = fold(before)
        if folded == before:
            return folded
        before = folded
    return text


def _folded(text: str) -> str:
    head, kept, tail = _parts(text)
    head = _spaced(head)
    if not kept:
        return _closed(head, text) or head
    if tail is not None:
        return head + kept + _closed(_spaced(tail), text)
    # Behind a backtick that is still open, space belongs to code.
    return head + (kept if kept.count("`") % 2 else kept.rstrip(_SPACES))


def _folded_within(text: str) -> str:
    head, kept, tail = _parts(text.rstrip(_SPACES))
    end = text[len(head) + len(kept) + len(tail or "") :]
    return _spaced(head) + kept + _spaced(tail or "") + end


def _parts(text: str) -> tuple[str, str, str | None]:
    """Prose, what stays as it is, and the prose behind it: None where all the rest stays.

    Where code or a second line comes first, what stands before it may be part of it: all stays.
    """
    first = _special().search(text)
    if first is None:
        return text, "", None
    start = first.start() if first["code"] is None else 0
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
    """`prose` with composed letters and single spaces."""
    if not prose.isascii():
        prose = _accented().sub(lambda found: unicodedata.normalize("NFC", found[0]), prose)
        prose = _compatible().sub(lambda found: unicodedata.normalize("NFKC", found[0]), prose)
        prose = _apostrophe().sub("'", prose)
    return _gaps().sub(" ", prose)


def _closed(prose: str, text: str) -> str:
    """`prose`, the end of `text`, without space, polite words and a full stop at its end."""
    prose = prose.rstrip(_SPACES)
    end = max(0, len(prose) - _END_CHARACTERS)
    polite = _closing().search(prose, end)
    shorter = prose[: polite.start()] if polite is not None else prose
    if shorter.endswith(".") and _full_stop().search(shorter, end):
        shorter = shorter[:-1]
    if shorter == prose or _with_material().search(text.lower()):
        return prose
    return shorter


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
        r"(?<=[A-Za-z])[\ufb00-\ufb06]+|[\ufb00-\ufb06]+(?=[A-Za-z])"
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
