"""Whether a text asks for anything at all, or but states something, as an encyclopaedia does."""

from __future__ import annotations

from collections.abc import Sequence

from shared.slots import word_list
from shared.veto.facts import Facts
from shared.veto.inflection import IRREGULAR

MIN_WORDS = 6
"""A statement has at least so many words."""

MIN_DENYING = 10
"""And so many where it denies something."""

_ASKING = frozenset(
    word_list("""
        i me my mine we us our ours you your yours u myself please pls plz help need want wants
        question how why what what's whats whose hi hello hey thanks thank should could
        error errors exception traceback fails failed failing crash crashes broken declined stuck
        wrong pending problem issue trouble todo""")
)
"""Words of asking, of a speaker, and of trouble: with one of them a text is no bare statement."""

_REQUESTS = frozenset(
    word_list("""
        add advise analyze analyse answer apply arrange ask book build buy calculate call cancel
        change check choose cite classify clean code combine come compare complete compose compute
        consider continue convert copy correct count create critique debug decide define delete
        derive describe design detect determine develop differentiate discuss do draft draw edit
        elaborate email embed estimate evaluate execute expand explain explore extract fetch fill
        find finish fix follow format generate get give go group guess identify imagine implement
        improve include insert install integrate introduce keep let lets limit list locate look
        make mention merge move name open optimize optimise order outline parse plan play polish
        predict prepare print produce proofread propose prove provide pull put rank rate read
        recommend refactor remind remove rename reorder repeat rephrase replace reply report
        research respond return review revise rewrite round run say schedule search select send set
        share shorten show sketch simplify simulate solve sort speak spell split start state stop
        subtract suggest sum summarize summarise suppose swap tag take talk teach tell test think
        train transform translate treat try turn update use validate verify wake walk watch write
        who when where which whether if is are was were am do does did can will would shall may
        might must has have had best top cheap cheapest tips ways steps reasons ideas difference
        differences meaning definition""")
)
"""What a question, a request or the title of a search begins with."""

_POLITE = frozenset(word_list("so ok okay well now then just first next quick also and , - * #"))
_OPENERS = frozenset(
    word_list("""
        the a an this these those his her its their he she it they there both most many some
        several all each every no in on at after before during from for with by as since until
        under over among between although though while despite according following within near""")
)
"""What sentences begin with and imperatives do not."""

_BREAKS = frozenset(word_list(". : , ; ! but"))
_INVERTED = frozenset(word_list("is are was were can do does did will should could would"))
_BE = frozenset(
    word_list("""
        is are was were has had have did does can cannot may might will would must became""")
)
_SUBJECTS = frozenset({"he", "she", "it", "they"})
_RELATIVE = frozenset(word_list("that which who where when if whom"))
_PAST = frozenset(form for form, base in IRREGULAR.items() if form != base) - frozenset(
    word_list("""
        children men women teeth feet mice geese wives lives knives leaves halves indices matrices
        analyses criteria phenomena""")
)
_DETERMINERS = frozenset(word_list("the a an his her its"))
_TAKEN = _DETERMINERS | {"their", "into", "from", "as"}
_OBJECTS = frozenset(
    word_list("the a an his her its their into from as by in on at to with of and that two three")
)


def asks_nothing(facts: Facts) -> bool:
    """Whether a text is a bare statement: nothing that an answer to another text could answer."""
    words = facts.plain
    if facts.blocks or facts.question_mark or not _ASKING.isdisjoint(words):
        return False
    start = 0
    while start < len(words) and words[start] in _POLITE:
        start += 1
    words = words[start:]
    if len(words) < MIN_DENYING and "not" in words:
        return False  # "The top-up did not go through" asks for help.
    if sum(word[0].isalnum() for word in words) < MIN_WORDS or words[0] in _REQUESTS:
        return False
    for place, word in enumerate(words[:-1]):
        follow = words[place + 1]
        if word in _BREAKS and follow in _REQUESTS and follow not in _RELATIVE:
            return False
        if word in {"when", "where", "which", "who"} and (
            place < 2 or (follow in _INVERTED and words[place - 1] in _BREAKS and word != "which")
        ):
            return False
    return _has_finite_verb(words, sentence=words[0] in _OPENERS)


def _has_finite_verb(words: Sequence[str], *, sentence: bool) -> bool:
    for place in range(1, len(words) - 1):
        word, before, behind = words[place], words[place - 1], words[place + 1]
        if word in _BE:
            if before not in _RELATIVE:
                return True
            continue
        if before in _RELATIVE or (before in _OPENERS and before not in _SUBJECTS):
            continue
        if word in _PAST or (len(word) > 4 and word.endswith("ed")):
            if behind in (_OBJECTS if sentence else _DETERMINERS):
                return True
        elif len(word) > 3 and word[-1] == "s" and word[-2] not in "siu" and behind in _TAKEN:
            return True
    return False
