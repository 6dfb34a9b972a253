"""The control document: what is decided survives its encoding, and a purge survives everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import shared.control_document as control_document_module
from shared.canonical import canonical
from shared.control_document import (
    MAX_API_KEYS,
    MAX_CUT_OFFS,
    MAX_NAME_CHARACTERS,
    RESIDENCIES,
    ROLES,
    VERSION,
    ApiKey,
    ControlDocument,
    ControlError,
    CutOffs,
    Policy,
    Purge,
    canonical_for,
    decode,
    encode,
    key_profile,
    new_document,
    objection,
    purged,
    revised,
)
from shared.controls import Controls
from shared.envelope import MAX_HEADER_BYTES, Header, SemanticSource
from shared.errors import ClientError
from shared.keys import short_key
from shared.normalisation import PROFILES
from shared.requests import Endpoint

HOUR_MS = 3_600_000
MAX_INTEGER = 2**53 - 1
VERSION_1 = "0123456789ab"
KEY, SOURCE_KEY, OTHER_KEY = "a" * 64, "b" * 64, "c" * 64
TAG, OTHER_TAG = "0" * 12, "1" * 12
KEY_ID = "0123456789abcdef" * 2
CHAT = "/v1/chat/completions"
LISTING = {"listing@1": "Analyze {where:address}, {price:money}"}
DOCUMENT = ControlDocument(
    tenant="acme",
    revision=7,
    keys={KEY_ID: ApiKey(id=KEY_ID, role="admin", name="ops", created_ms=5)},
    policy=Policy(normalisation="text", residency="origin-only", encrypted=True, templates=LISTING),
    cut_offs=CutOffs(all_ms=1, models={"m": 2}, tags={TAG: 3}, keys={short_key(KEY): 4}),
    longest_life_ms=9,
)
HEADER = Header(
    key=KEY,
    tenant="acme",
    generation_started_ms=1000,
    created_ms=1000,
    fresh_until_ms=2000,
    stale_until_ms=2000,
    error_until_ms=2000,
    etag="e",
    model="asked",
    answered_by="answered",
    fingerprint="f",
    segments={"json": 1},
    tags=(OTHER_TAG, TAG),
    source=SemanticSource(similarity=0.9, key=SOURCE_KEY, calibration="1"),
)

TIMES = st.integers(0, MAX_INTEGER)
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=9)
MODELS = TEXTS.filter(bool)
TENANTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    """Any text of so many hexadecimal characters."""
    return st.text("0123456789abcdef", min_size=length, max_size=length)


POLICIES = st.builds(
    Policy,
    normalisation=st.sampled_from(PROFILES),
    residency=st.sampled_from(RESIDENCIES),
    encrypted=st.booleans(),
    rate_limited=st.booleans(),
    templates=st.sampled_from([{}, LISTING, {**LISTING, "e@1": "é {n:text}"}]),
    lax_classes=st.sampled_from([(), ("faq",), ("faq", "a_b-9")]),
)
CUT_OFFS = st.builds(
    CutOffs,
    all_ms=TIMES,
    models=st.dictionaries(MODELS, TIMES, max_size=3),
    tags=st.dictionaries(hexadecimal(12), TIMES, max_size=3),
    keys=st.dictionaries(hexadecimal(16), TIMES, max_size=3),
)
API_KEYS = st.builds(
    ApiKey, id=hexadecimal(32), role=st.sampled_from(ROLES), name=TEXTS, created_ms=TIMES
)
DOCUMENTS = st.builds(
    ControlDocument,
    tenant=TENANTS,
    revision=TIMES,
    keys=st.lists(API_KEYS, max_size=3).map(lambda keys: {key.id: key for key in keys}),
    policy=POLICIES,
    cut_offs=CUT_OFFS,
    longest_life_ms=TIMES,
)


def started(at_ms: int) -> Header:
    """The entry of a generation that started then."""
    return replace(
        HEADER,
        generation_started_ms=at_ms,
        created_ms=at_ms,
        fresh_until_ms=at_ms,
        stale_until_ms=at_ms,
        error_until_ms=at_ms,
    )


def fields_of(document: ControlDocument) -> dict[str, Any]:
    """The encoded document, parsed."""
    fields: dict[str, Any] = json.loads(encode(document))
    return fields


# ------------------------------------------------------------------------------------ encoding


@given(DOCUMENTS)
def test_what_is_encoded_is_decoded(document: ControlDocument) -> None:
    """From bytes and from text, to the same bytes again; the templates are ready for use."""
    data = encode(document)
    read = decode(data, document.tenant)
    assert read == document
    assert decode(data.decode(), document.tenant) == document
    assert encode(read) == data
    assert read.templates == document.templates


@given(DOCUMENTS)
def test_a_document_survives_javascript(document: ControlDocument) -> None:
    """Order and spelling of JSON are another writer's business."""
    text = json.dumps(fields_of(document), indent=1, sort_keys=True)
    assert decode(text, document.tenant) == document


@given(DOCUMENTS, TENANTS)
def test_another_tenants_document_is_refused(document: ControlDocument, tenant: str) -> None:
    """Whatever key of KV it was found under."""
    if tenant != document.tenant:
        with pytest.raises(ControlError, match="another tenant"):
            decode(encode(document), tenant)


@example(b"")
@example(b"\xff\xfe{\x00}\x00")
@example(b"[" * 100_000)
@example(b"1" * 10_000)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """With ControlError and nothing else."""
    with pytest.raises(ControlError):
        decode(data, "acme")


@given(JSON)
def test_arbitrary_json_is_refused(value: Any) -> None:
    """With ControlError and nothing else, also where it says the right version and tenant."""
    with pytest.raises(ControlError):
        decode(json.dumps(value), "acme")
    if type(value) is dict:
        with pytest.raises(ControlError):
            decode(json.dumps({**value, "v": VERSION, "tenant": "acme"}), "acme")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value within a parsed document."""
    yield path
    children = value.items() if type(value) is dict else ()
    for name, inner in enumerate(value) if type(value) is list else children:
        yield from places(inner, (*path, name))


PLACES = [path for path in places(fields_of(DOCUMENT)) if path]


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The fields of DOCUMENT with another value at one place."""
    fields = fields_of(DOCUMENT)
    holder: Any = fields
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return fields


@given(st.sampled_from(PLACES), JSON)
def test_a_document_with_any_other_value_is_refused_or_legal(
    path: tuple[Any, ...], value: Any
) -> None:
    """Anything in place of anything: ControlError, or exactly what we would write."""
    fields = changed(path, value)
    try:
        read = decode(json.dumps(fields), "acme")
    except ControlError:
        return
    assert json.dumps(fields_of(read), sort_keys=True) == json.dumps(fields, sort_keys=True)


@pytest.mark.parametrize("path", PLACES, ids=str)
@pytest.mark.parametrize(
    "value", [None, 1.0, -1, 2**53, "", "\ud800", "a\x00", [], {}, {"a": {}}, [[]]], ids=repr
)
def test_no_field_takes_what_it_is_not(path: tuple[Any, ...], value: Any) -> None:
    """ControlError, but for the few values that are legal there."""
    legal: dict[str, tuple[tuple[Any, ...], ...]] = {
        "''": (("keys", 0, 2),),
        "[]": (("keys",),),
        "{}": (
            ("policy", "templates"),
            ("cut_offs", "models"),
            ("cut_offs", "tags"),
            ("cut_offs", "keys"),
        ),
    }
    text = json.dumps(changed(path, value))
    if path in legal.get(repr(value), ()):
        decode(text, "acme")
        return
    with pytest.raises(ControlError):
        decode(text, "acme")


@pytest.mark.parametrize(
    "value", [None, 1, "faq", {}, [], [1], [None], ["Faq"], [""], ["faq", ["faq"]], ["a"] * 101]
)
def test_lax_classes_are_a_list_of_names_that_is_left_out_where_empty(value: Any) -> None:
    """A document that one cannot be sure of is refused."""
    fields = fields_of(DOCUMENT)
    fields["policy"]["lax_classes"] = ["faq"]
    assert decode(json.dumps(fields), "acme").policy.lax_classes == ("faq",)
    fields["policy"]["lax_classes"] = value
    with pytest.raises(ControlError):
        decode(json.dumps(fields), "acme")


@pytest.mark.parametrize("path", [p for p in PLACES if type(p[-1]) is str], ids=str)
def test_a_document_that_lacks_a_field_is_refused(path: tuple[Any, ...]) -> None:
    """Nothing is guessed, least of all that a tenant is not encrypted."""
    fields = fields_of(DOCUMENT)
    holder: Any = fields
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    if path[0] in {"cut_offs", "policy"} and len(path) == 3:
        decode(json.dumps(fields), "acme")  # a name fewer is another document
        return
    with pytest.raises(ControlError):
        decode(json.dumps(fields), "acme")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":0'),
        ('"v":1', '"v":1.0'),
        ('"v":1', '"v":true'),
        ('"v":1', '"v":"1"'),
        ('"v":1', '"v":1,"zz":null'),
        ('"v":1', '"v":1,"v":1'),
        ('"all":1', '"all":1,"users":{"u":1}'),
        ('"all":1', '"all":9,"all":1'),
        ('"all":1', '"all":true'),
        ('"all":1', '"all":1e0'),
        ('"all":1', '"all":NaN'),
        ('"all":1', '"all":Infinity'),
        ('"all":1', f'"all":{"9" * 5000}'),
        ('{"m":2}', '{"m":9,"m":2}'),
        ('{"m":2}', '[["m",2]]'),
        ('{"m":2}', '{"":2}'),
        ('{"m":2}', '{"\\ud800":2}'),
        ('{"m":2}', '{"\\u0000":2}'),
        ('{"m":2}', f'{{"{"m" * (MAX_HEADER_BYTES + 1)}":2}}'),
        (TAG, TAG[:-1]),
        (TAG, "A" * 12),
        (short_key(KEY), KEY),
        (short_key(KEY), "g" * 16),
        ('"policy":{', '"policy":{"novel":1,'),
        ('"encrypted":true', '"encrypted":1'),
        ('"encrypted":true', '"encrypted":true,"encrypted":false'),
        ('"normalisation":"text"', '"normalisation":"Text"'),
        ('"residency":"origin-only"', '"residency":"eu"'),
        ("listing@1", "listing"),
        ("{price:money}", "{price:coin}"),
        ("Analyze ", "\\ud800 "),
        (f'[["{KEY_ID}","admin","ops",5]]', f'{{"{KEY_ID}":["admin","ops",5]}}'),
        ('"ops",5', '"ops",5,6'),
        ('"ops",5', '"ops"'),
        ('"admin"', '"root"'),
        ('"ops"', f'"{"o" * (MAX_NAME_CHARACTERS + 1)}"'),
        ('"ops"', '"o\\nps"'),
        (f'["{KEY_ID}","admin","ops",5]', ",".join([f'["{KEY_ID}","admin","ops",5]'] * 2)),
        (KEY_ID, KEY_ID[:-1]),
        (KEY_ID, KEY_ID.upper()),
    ],
)
def test_a_document_we_would_not_have_written_is_refused(old: str, new: str) -> None:
    """Another spelling could be another meaning; a field of a later version could be a purge."""
    text = encode(DOCUMENT).decode()
    assert old in text
    with pytest.raises(ControlError):
        decode(text.replace(old, new), "acme")


@pytest.mark.parametrize(
    "data",
    [
        encode(DOCUMENT).decode().encode("utf-16"),
        encode(DOCUMENT).decode().encode("utf-32-be"),
        b"\xef\xbb\xbf" + encode(DOCUMENT),
        encode(DOCUMENT).replace(b"ops", b"\xed\xa0\xbd"),
        encode(DOCUMENT) + encode(DOCUMENT),
        encode(DOCUMENT)[:-1],
    ],
)
def test_a_document_is_one_text_of_utf8(data: bytes) -> None:
    """What json alone would read is refused."""
    with pytest.raises(ControlError):
        decode(data, "acme")


# ------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("tenant", ["", "A", "-a", "a" * 33, "a\n", None, 1])
def test_a_tenant_has_a_legal_name(tenant: Any) -> None:
    """The one that API keys can carry."""
    with pytest.raises(ControlError):
        replace(DOCUMENT, tenant=tenant)


def test_a_key_stands_under_its_own_id() -> None:
    """Else revoking one would leave it."""
    with pytest.raises(ControlError, match="key id"):
        replace(DOCUMENT, keys={"f" * 32: DOCUMENT.keys[KEY_ID]})


def test_a_document_holds_so_many_api_keys() -> None:
    """The limit is exact."""
    ids = [f"{i:032x}" for i in range(MAX_API_KEYS + 1)]
    keys = {id_: ApiKey(id=id_, role="client", name="", created_ms=0) for id_ in ids[1:]}
    full = replace(DOCUMENT, keys=keys)
    assert decode(encode(full), "acme") == full
    with pytest.raises(ControlError, match="at most 1000 API keys"):
        replace(DOCUMENT, keys={**keys, ids[0]: replace(keys[ids[1]], id=ids[0])})


def test_a_template_that_is_malformed_is_named() -> None:
    """The operator is told what to mend."""
    with pytest.raises(ControlError, match=r"listing@1.*coin"):
        revised(DOCUMENT, 1, policy=Policy(templates={"listing@1": "{price:coin}"}))


def test_the_role_of_a_key_is_what_the_document_says() -> None:
    """A revoked one has none."""
    assert DOCUMENT.role_of(KEY_ID) == "admin"
    assert DOCUMENT.role_of("f" * 32) is None
    assert revised(DOCUMENT, 1, keys={}).role_of(KEY_ID) is None


@given(DOCUMENTS, TIMES)
def test_a_revision_grows(document: ControlDocument, now_ms: int) -> None:
    """To the clock's time where that is later, by one where the clock is behind."""
    if document.revision < MAX_INTEGER:
        revision = revised(document, now_ms).revision
        assert revision > document.revision
        assert revision in {now_ms, document.revision + 1}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"everything": True, "models": ("m",)},
        {"models": ("",)},
        {"models": ("\ud800",)},
        {"models": ("a\nb",)},
        {"models": (1,)},
        {"models": ("m" * (MAX_HEADER_BYTES + 1),)},
        {"tags": ("listing:42",)},
        {"tags": (TAG + "0",)},
        {"tags": (TAG.replace("0", "A"),)},
        {"tags": (None,)},
        {"keys": ("",)},
        {"keys": (KEY[:15],)},
        {"keys": (KEY[:17],)},
        {"keys": (KEY.upper(),)},
        {"keys": (KEY[:16] + "z" * 48,)},
        {"keys": (1,)},
        {"models": tuple(map(str, range(MAX_CUT_OFFS + 1)))},
    ],
)
def test_a_purge_names_what_there_can_be(fields: dict[str, Any]) -> None:
    """A purge that could never name an entry is a mistake, and is said to be one."""
    with pytest.raises(ControlError):
        Purge(**fields)


# ------------------------------------------------------------------------------------ cut-offs


@pytest.mark.parametrize("cut_off_ms", [999, 1000, 1001])
@pytest.mark.parametrize(
    "kind",
    [
        lambda at_ms: CutOffs(all_ms=at_ms),
        lambda at_ms: CutOffs(models={"asked": at_ms}),
        lambda at_ms: CutOffs(models={"answered": at_ms}),
        lambda at_ms: CutOffs(tags={TAG: at_ms}),
        lambda at_ms: CutOffs(tags={OTHER_TAG: at_ms}),
        lambda at_ms: CutOffs(keys={short_key(KEY): at_ms}),
        lambda at_ms: CutOffs(keys={short_key(SOURCE_KEY): at_ms}),
        lambda at_ms: CutOffs(models={"asked": 1, "answered": at_ms}, tags={TAG: 1}),
    ],
    ids=["all", "model", "answered by", "tag", "first tag", "key", "source key", "latest"],
)
def test_an_entry_is_dead_if_its_generation_started_at_or_before_its_cut_off(
    kind: Any, cut_off_ms: int
) -> None:
    """At counts, a moment after does not, whatever names it."""
    assert kind(cut_off_ms).name(HEADER) == (cut_off_ms >= 1000)


@pytest.mark.parametrize(
    "header", [HEADER, replace(HEADER, answered_by=None, tags=(), source=None)]
)
def test_a_cut_off_of_something_else_names_nothing(header: Header) -> None:
    """However late it is."""
    late = dict.fromkeys(["other", "f", "answere"], MAX_INTEGER)
    cut_offs = CutOffs(
        all_ms=999,
        models=late,
        tags={"f" * 12: MAX_INTEGER},
        keys={short_key(OTHER_KEY): MAX_INTEGER},
    )
    assert not cut_offs.name(header)


def test_a_model_that_answers_for_itself_is_named_by_its_name() -> None:
    """Without `answered_by` the one asked for is the one that answered."""
    header = replace(HEADER, answered_by=None)
    assert CutOffs(models={"asked": 1000}).name(header)
    assert not CutOffs(models={"answered": 1000}).name(header)


@pytest.mark.parametrize(
    ("encrypted", "encryption", "all_ms", "expected"),
    [
        (False, None, 0, None),
        (False, "1a2b3c4d", 0, None),
        (True, "1a2b3c4d", 0, None),
        (True, None, 0, "not-encrypted"),
        (True, None, 1000, "purged"),
        (False, None, 1000, "purged"),
        (True, "1a2b3c4d", 1000, "purged"),
    ],
)
def test_what_must_not_be_used_is_objected_to(
    encrypted: bool, encryption: str | None, all_ms: int, expected: str | None
) -> None:
    """Plain entries of a tenant whose entries are sealed by now are misses; being purged is all."""
    document = replace(
        DOCUMENT, policy=Policy(encrypted=encrypted), cut_offs=CutOffs(all_ms=all_ms)
    )
    header = replace(HEADER, encryption=encryption, source=None)
    assert objection(document, header) == expected


@pytest.mark.parametrize(
    ("calibration", "semantic", "controls", "expected"),
    [
        (VERSION_1, "strict", Controls(), None),
        (VERSION_1, "strict", Controls(semantic_threshold=0.95), None),
        (VERSION_1, "strict", Controls(semantic_threshold=0.951), "too-dissimilar"),
        (VERSION_1, "strict", Controls(semantic_off=True), "too-dissimilar"),
        (VERSION_1, "off", Controls(), "recalibrated"),
        (VERSION_1, "0.01", Controls(), "recalibrated"),
        ("0123456789ac", "strict", Controls(), "recalibrated"),
        ("", "strict", Controls(), "recalibrated"),
    ],
)
def test_a_promoted_entry_counts_under_its_own_rule_alone(
    calibration: str, semantic: str, controls: Controls, expected: str | None
) -> None:
    """Another version, another mode, a stricter request: a miss."""
    document = replace(
        DOCUMENT,
        policy=Policy(semantic=semantic),
        cut_offs=CutOffs(),
        calibration=calibration,
    )
    source = SemanticSource(similarity=0.95, key=OTHER_KEY, calibration=f"{VERSION_1}/strict")
    header = replace(HEADER, source=source)
    assert objection(document, header, controls=controls) == expected
    assert objection(document, replace(header, source=None), controls=controls) is None


def test_a_promoted_entry_does_not_count_while_a_secret_is_replaced() -> None:
    """It names its source by one of the two keys, and a purge may have named the other."""
    document = replace(DOCUMENT, policy=Policy(), cut_offs=CutOffs(), calibration=VERSION_1)
    source = SemanticSource(similarity=0.95, key=OTHER_KEY, calibration=f"{VERSION_1}/strict")
    header = replace(HEADER, source=source)
    assert objection(document, header) is None
    assert objection(document, header, "f" * 64) == "purged"
    assert objection(document, replace(header, source=None), "f" * 64) is None


@pytest.mark.parametrize(
    ("semantic", "bound"),
    [("off", None), ("strict", 0.01), ("0.005", 0.005), ("0.5", 0.5), ("0.000001", 0.000001)],
)
def test_semantic_modes(semantic: str, bound: float | None) -> None:
    """A mode is a bound, or none; it survives being written."""
    document = replace(DOCUMENT, policy=Policy(semantic=semantic))
    assert document.policy.semantic_bound == bound
    assert decode(encode(document), document.tenant) == document


@pytest.mark.parametrize(
    "semantic", ["", "on", "Strict", "0", "0.0", "0.50", "0.51", "1", "1e-3", ".01", "0.0000001", 1]
)
def test_what_is_no_semantic_mode_is_refused(semantic: Any) -> None:
    """Each bound has one text, and none is above one half."""
    with pytest.raises(ControlError, match="semantic"):
        Policy(semantic=semantic)


# ------------------------------------------------------------------------------------ purges

MODEL_POOL, TAG_POOL, KEY_POOL = ("m", "n", "o"), ("0" * 12, "1" * 12), ("a" * 64, "b" * 64)
# In steps that a life and its grace are a few of.
CLOCK = st.integers(1, 30).map(lambda step: step * HOUR_MS // 2)
SOME_NAMED = st.builds(
    Purge,
    models=st.lists(st.sampled_from(MODEL_POOL), max_size=1).map(tuple),
    tags=st.lists(st.sampled_from(TAG_POOL), max_size=1).map(tuple),
    keys=st.just((KEY_POOL[0],)) | st.just((short_key(KEY_POOL[1]),)),
) | st.sampled_from(
    [*(Purge(models=(m,)) for m in MODEL_POOL), *(Purge(tags=(t,)) for t in TAG_POOL)]
)
PURGES = SOME_NAMED | st.just(Purge(everything=True))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """An entry that purges from the pools may name."""
    source = SemanticSource(similarity=0.9, key=draw(st.sampled_from(KEY_POOL)), calibration="1")
    return replace(
        started(draw(CLOCK)),
        key=draw(st.sampled_from([*KEY_POOL, OTHER_KEY])),
        model=draw(st.sampled_from(MODEL_POOL)),
        answered_by=draw(st.none() | st.sampled_from(MODEL_POOL)),
        tags=draw(st.sampled_from([(), TAG_POOL[:1], TAG_POOL])),
        source=draw(st.none() | st.just(source)),
    )


def names(purge: Purge, at_ms: int, header: Header) -> bool:
    """The naive rule, which forgets nothing: one purge, one entry."""
    keys = {short_key(key) for key in purge.keys}
    entry_keys = {short_key(header.key)}
    if header.source is not None:
        entry_keys.add(short_key(header.source.key))
    named = (
        purge.everything
        or bool(keys & entry_keys)
        or bool({header.model, header.answered_by} & set(purge.models))
        or bool(set(header.tags) & set(purge.tags))
    )
    return named and header.generation_started_ms <= at_ms


@pytest.mark.parametrize("limit", [3, 4, 1000])
@given(
    history=st.lists(st.tuples(PURGES, CLOCK), max_size=12),
    headers_=st.lists(headers(), min_size=1, max_size=4),
    life_ms=st.integers(0, 8).map(lambda step: step * HOUR_MS),
)
def test_what_a_purge_has_named_stays_named(
    limit: int, history: list[tuple[Purge, int]], headers_: list[Header], life_ms: int
) -> None:
    """Whatever follows: more purges than fit, old ones dropped, a clock set back or ahead."""
    document = ControlDocument(tenant="acme", revision=1, longest_life_ms=life_ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_document_module, "MAX_CUT_OFFS", limit)
        for done, (purge, now_ms) in enumerate(history, start=1):
            before = document
            document = purged(before, purge, now_ms)
            assert document.revision > before.revision
            cut_offs = document.cut_offs
            assert len(cut_offs.models) + len(cut_offs.tags) + len(cut_offs.keys) <= limit
            assert decode(encode(document), "acme") == document
            for header in headers_:
                if any(names(*past, header) for past in history[:done]):
                    assert objection(document, header) == "purged"


@given(
    history=st.lists(st.tuples(PURGES, CLOCK), max_size=12),
    header=headers(),
    life_ms=st.integers(0, 8).map(lambda step: step * HOUR_MS),
)
def test_of_what_may_live_only_that_which_was_named_is_dead(
    history: list[tuple[Purge, int]], header: Header, life_ms: int
) -> None:
    """While cut-offs are not too many, dropping old ones costs no entry its life."""
    history = sorted(history, key=lambda past: past[1])
    document = ControlDocument(tenant="acme", revision=1, longest_life_ms=life_ms)
    for purge, now_ms in history:
        document = purged(document, purge, now_ms)
    last_ms = history[-1][1] if history else 0
    if header.generation_started_ms >= last_ms - life_ms - HOUR_MS:
        named = any(names(*past, header) for past in history)
        assert document.cut_offs.name(header) == named


def test_a_purge_changes_nothing_else() -> None:
    """Keys and policy stay, and the document given is as it was."""
    before = encode(DOCUMENT)
    after = purged(DOCUMENT, Purge(everything=True), 100)
    assert encode(DOCUMENT) == before
    assert replace(after, revision=7, cut_offs=DOCUMENT.cut_offs) == DOCUMENT
    assert after.cut_offs == CutOffs(all_ms=100)


@pytest.mark.parametrize(
    ("purge", "cut_off"),
    [
        (Purge(everything=True, older_than_s=60), CutOffs(all_ms=40_000)),
        (Purge(models=("m",), older_than_s=60), CutOffs(models={"m": 40_000})),
        (Purge(tags=("a" * 12,), older_than_s=99), CutOffs(tags={"a" * 12: 1000})),
        (Purge(everything=True, older_than_s=100), CutOffs()),
        (Purge(everything=True, older_than_s=10**9), CutOffs()),
    ],
)
def test_what_is_younger_than_a_purge_says_is_spared(purge: Purge, cut_off: CutOffs) -> None:
    """The cut-off lies that far back; the revision is of now, and nothing else is undone."""
    after = purged(ControlDocument(tenant="acme", revision=1), purge, 100_000)
    assert after.cut_offs == cut_off
    assert after.revision == 100_000
    everything = purged(after, Purge(everything=True), 100_001)
    assert purged(everything, purge, 100_002).cut_offs.all_ms == 100_001


def test_a_clock_set_back_moves_no_cut_off_back() -> None:
    """An entry from between the two purges stays dead."""
    early, late = Purge(models=("asked",)), 2000
    document = purged(purged(DOCUMENT, early, late), early, 500)
    assert document.cut_offs.models["asked"] == late


def test_the_oldest_of_too_many_cut_offs_become_one_for_everything() -> None:
    """So many fit; of one more the oldest goes, and takes with it all from its time."""
    document = ControlDocument(tenant="acme", revision=1)
    first, *rest = (f"{i:012x}" for i in range(MAX_CUT_OFFS))
    document = purged(document, Purge(tags=(first,)), 1)
    document = purged(document, Purge(tags=tuple(rest)), 2)
    assert document.cut_offs.all_ms == 0
    assert len(document.cut_offs.tags) == MAX_CUT_OFFS
    folded = purged(document, Purge(tags=("f" * 12,)), 3)
    assert folded.cut_offs.all_ms == 1
    assert folded.cut_offs.tags == {**dict.fromkeys(rest, 2), "f" * 12: 3}


def test_cut_offs_of_one_time_fold_together() -> None:
    """Which of them to keep nobody can say, so everything from that time goes."""
    document = ControlDocument(tenant="acme", revision=1)
    document = purged(document, Purge(models=tuple(map(str, range(MAX_CUT_OFFS)))), 5)
    assert purged(document, Purge(tags=(TAG,)), 5).cut_offs == CutOffs(all_ms=5)


@pytest.mark.parametrize(("late_ms", "kept"), [(0, True), (1, False)])
def test_a_cut_off_is_kept_as_long_as_an_entry_may_live(late_ms: int, kept: bool) -> None:
    """The longest life and an hour: the generation takes time, and clocks differ."""
    document = ControlDocument(tenant="acme", revision=1, longest_life_ms=9 * HOUR_MS)
    document = purged(document, Purge(models=("m",)), HOUR_MS)
    document = purged(document, Purge(models=("n",)), 11 * HOUR_MS + late_ms)
    assert ("m" in document.cut_offs.models) == kept
    assert document.cut_offs.all_ms == (0 if kept else HOUR_MS)


@given(TIMES, TIMES)
def test_a_new_document_cuts_off_all_that_was_before(now_ms: int, started_ms: int) -> None:
    """What was purged under a lost one stays dead; what comes after may live. It knows no key."""
    document = new_document("acme", now_ms)
    assert (objection(document, started(started_ms)) == "purged") == (started_ms <= now_ms)
    assert document.revision == now_ms
    assert not document.keys
    assert decode(encode(document), "acme") == document


# ------------------------------------------------------------------------------------ keys


def keyed(policy: Policy, text: Any, *, controls: Controls | None = None) -> Any:
    """The fields that the key of a chat is made of, parsed."""
    fields = {"model": "m", "messages": [{"role": "user", "content": text}]}
    document = ControlDocument(tenant="acme", revision=1, policy=policy)
    form = canonical_for(
        document, endpoint=Endpoint.CHAT, controls=controls or Controls(), fields=fields
    )
    return json.loads(form.canonical)


@given(
    st.sampled_from([Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS]),
    st.dictionaries(
        st.sampled_from(["model", "prompt", "input", "seed", "novel"]),
        st.none() | st.integers() | TEXTS,
    ),
    st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXTS})
    ),
    st.integers(0, 9999),
    st.sampled_from(["", "user-1"]),
)
def test_the_exact_profile_keys_a_request_as_it_came(
    endpoint: Endpoint,
    fields: dict[str, Any],
    messages: list[dict[str, str]],
    bucket: int,
    scope: str,
) -> None:
    """Tenant, scope, endpoint, bucket and fields, nothing folded and nothing left out."""
    fields = {**fields, "messages": messages}
    document = ControlDocument(tenant="acme", revision=1)
    form = canonical_for(
        document, endpoint=endpoint, controls=Controls(scope=scope, bucket=bucket), fields=fields
    )
    assert form.strategy == "exact"
    assert form.canonical == canonical(
        tenant="acme", scope=scope, endpoint=endpoint.value, bucket=bucket, fields=fields
    )


def test_the_tenant_is_the_documents() -> None:
    """And scope and bucket those of the request's controls, in their places."""
    got = keyed(Policy(), "Hello", controls=Controls(scope="s", bucket=3))
    message = {"role": "user", "content": "Hello"}
    assert got == ["encore-1", "acme", "s", CHAT, 3, {"model": "m", "messages": [message]}]


SPELLINGS = (
    "Analyze this property: 123 Main St, 3BR/2BA, $450k",
    "Please analyze: 123 Main St, 3BR/2BA, asking $450k",
)


@pytest.mark.parametrize(
    ("policy", "left", "right", "equal"),
    [
        (Policy(), "What is a lease?", "what is a lease?", False),
        (Policy(normalisation="text"), "What is a lease?", " what is a  lease?", True),
        (Policy(normalisation="text"), "What is a lease?", "What is a release?", False),
        (Policy(normalisation="text"), *SPELLINGS, False),
        (Policy(normalisation="property"), *SPELLINGS, True),
        (Policy(normalisation="property"), SPELLINGS[0], SPELLINGS[0] + "1", False),
        (Policy(templates=LISTING), "Analyze 1 Elm St, $450k", "Analyze 1 Elm St, $450,000", True),
        (Policy(templates=LISTING), "Analyze 1 Elm St, $450k", "Analyze 1 Elm St, $451k", False),
        (Policy(templates=LISTING), "See 1 Elm St, $450k", "See 1 Elm St, $450,000", False),
    ],
)
def test_a_policy_folds_spellings_and_keeps_meanings(
    policy: Policy, left: str, right: str, equal: bool
) -> None:
    """What profile and templates find to be the same has one key, and nothing else has."""
    assert (keyed(policy, left) == keyed(policy, right)) == equal


def test_a_template_comes_before_the_profile() -> None:
    """What matches in full is keyed by label and slots, under any profile."""
    forms = {
        json.dumps(keyed(Policy(normalisation=profile, templates=LISTING), "Analyze 1 Elm St, $2"))
        for profile in PROFILES
    }
    (form,) = forms
    assert json.loads(form)[5]["messages"][0]["content"]["template"] == "listing@1"


@pytest.mark.parametrize("policy", [Policy(), Policy(templates=LISTING)], ids=["none", "one"])
@pytest.mark.parametrize(
    "content",
    [
        {"template": "listing@1", "slots": {"where": "1 elm st", "price": "2"}},
        [{"type": "text", "text": {"template": "listing@1"}}],
    ],
)
def test_a_client_cannot_name_a_template(policy: Policy, content: Any) -> None:
    """An object in place of text is refused, whether there are templates or not."""
    with pytest.raises(ClientError) as refusal:
        keyed(policy, content)
    assert refusal.value.status == 400


def test_fields_are_never_changed() -> None:
    """What is sent to a model is the request as it came."""
    fields = {"messages": [{"role": "user", "content": "Please,  WHAT is a lease?"}]}
    before = json.dumps(fields)
    document = replace(DOCUMENT, policy=Policy(normalisation="property", templates=LISTING))
    canonical_for(document, endpoint=Endpoint.CHAT, controls=Controls(), fields=fields)
    assert json.dumps(fields) == before


@pytest.mark.parametrize(
    ("changes", "equal"),
    [
        ({"revision": 8}, True),
        ({"keys": {}}, True),
        ({"cut_offs": CutOffs()}, True),
        ({"policy": replace(DOCUMENT.policy, encrypted=False, residency="edge")}, True),
        ({"policy": replace(DOCUMENT.policy, normalisation="exact")}, False),
        ({"policy": replace(DOCUMENT.policy, templates={})}, False),
        (
            {"policy": replace(DOCUMENT.policy, templates={"listing@2": LISTING["listing@1"]})},
            False,
        ),
    ],
)
def test_a_key_profile_is_what_decides_keys(changes: dict[str, Any], equal: bool) -> None:
    """And nothing else of a document, also after it was encoded."""
    other = decode(encode(replace(DOCUMENT, **changes)), "acme")
    assert (key_profile(other) == key_profile(DOCUMENT)) == equal
