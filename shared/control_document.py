"""The control document: what is decided about one tenant, and the rules that follow from it.

The origin is its only writer and serialises the changes; the edge holds a copy in KV
(`ctl:TENANT`). It says which API keys exist and what they may do, the tenant's policy, and what has
been purged.

A purge is a cut-off in time: an entry is dead if its generation *started* at or before a cut-off
that names it. So a purge during a generation cannot be undone by its store, and a copy in any tier
needs no visit.

Invariants
1. `revision` grows with every change, by the store's clock: of two documents the larger one rules,
   also where the store had lost the smaller one.
2. A new document cuts off everything before it: what was purged under a lost one stays dead.
3. What a cut-off names stays named. Where cut-offs are too many, or older than any entry lives, the
   oldest become one for everything: too much is purged, never too little.
4. What cannot be decoded raises `ControlError`; nothing is guessed. (A field of a later version
   could be a purge, so unknown ones are refused.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from shared import json_text
from shared.canonical import canonical
from shared.controls import CONTENT_CLASS, CONTENT_CLASS_WORDS, Controls
from shared.embeddings import keyed_fields
from shared.envelope import MAX_HEADER_BYTES, TAG_HEX_CHARACTERS, Header
from shared.keys import KEY_ID_HEX_CHARACTERS, SHORT_KEY_HEX_CHARACTERS, check_tenant, short_key
from shared.normalisation import PROFILES, normalise
from shared.requests import Endpoint
from shared.templates import Templates, register, templated

VERSION = 1
ROLES = ("client", "admin")
RESIDENCIES = ("edge", "origin-only")
OPERATOR_TENANT = "operator"
"""The tenant whose admin keys may act for any tenant."""
MAX_CUT_OFFS = 1000
MAX_API_KEYS = 1000
MAX_NAME_CHARACTERS = 64
MAX_LAX_CLASSES = 100
STRICT_BOUND = 0.01
"""What the semantic mode `strict` allows of wrong among served semantic hits (an estimate)."""

_GRACE_MS = 3_600_000
"""Added to the longest life: a generation takes time, and clocks differ."""
# A share above 0 and at most one half, as a plain decimal: there is one text of each.
_BOUND = re.compile(r"0\.(?:[0-4][0-9]{0,5}|5)(?<!0)")
_CALIBRATION = re.compile(r"[0-9a-f]{12}|")
_HEX = frozenset("0123456789abcdef")
_KEY_HEX_CHARACTERS = 64
_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{0,{MAX_NAME_CHARACTERS}}}")
# A longer one fits into no header.
_MODEL = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_HEADER_BYTES}}}")
# What has a UTF-8 form.
_TEXT = re.compile(r"[^\ud800-\udfff]*")


class ControlError(ValueError):
    """Not a control document this version can read, or a change that cannot be made."""


_read = json_text.reader(ControlError)


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= json_text.MAX_INTEGER


def _is_hex(value: Any, length: int) -> bool:
    return type(value) is str and len(value) == length and _HEX.issuperset(value)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _is_model(value: Any) -> bool:
    return _matches(_MODEL, value)


def _is_tag(value: Any) -> bool:
    return _is_hex(value, TAG_HEX_CHARACTERS)


def _is_short_key(value: Any) -> bool:
    return _is_hex(value, SHORT_KEY_HEX_CHARACTERS)


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ControlError(what)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """An API key that exists; the key itself is kept nowhere. `id` is its `shared.keys.key_id`."""

    id: str
    role: str
    name: str
    created_ms: int

    def __post_init__(self) -> None:
        _require(_is_hex(self.id, KEY_ID_HEX_CHARACTERS), "key id")
        _require(self.role in ROLES, f"role: one of {', '.join(ROLES)}")
        _require(
            _matches(_NAME, self.name),
            f"name: at most {MAX_NAME_CHARACTERS} characters, none of them a control character",
        )
        _require(_is_time(self.created_ms), "created")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the operator decided for a tenant.

    `normalisation` is a profile of `shared.normalisation`; `residency` `origin-only` keeps its
    entries out of KV; `encrypted` keeps them sealed at rest; `rate_limited` subjects it to the
    platform's rate limit where one is bound; `templates` maps `name@version` to a pattern;
    `lax_classes` are content classes whose lifetime holds even where it is the longer one.
    `semantic` is how wrong semantic match may be: `off`, `strict`, or an own bound as a decimal.
    """

    normalisation: str = "exact"
    residency: str = "edge"
    encrypted: bool = False
    rate_limited: bool = True
    templates: Mapping[str, str] = field(default_factory=dict)
    lax_classes: tuple[str, ...] = ()
    semantic: str = "strict"

    def __post_init__(self) -> None:
        _require(self.normalisation in PROFILES, f"normalisation: one of {', '.join(PROFILES)}")
        _require(self.residency in RESIDENCIES, f"residency: one of {', '.join(RESIDENCIES)}")
        _require(type(self.encrypted) is bool, "encrypted: true or false")
        _require(type(self.rate_limited) is bool, "rate_limited: true or false")
        _require(isinstance(self.templates, Mapping), "templates: an object")
        for label, pattern in self.templates.items():
            _require(type(label) is str and _matches(_TEXT, pattern), "templates: texts")
        _require(len(self.lax_classes) <= MAX_LAX_CLASSES, f"at most {MAX_LAX_CLASSES} lax classes")
        for name in self.lax_classes:
            _require(_matches(CONTENT_CLASS, name), f"lax class: {CONTENT_CLASS_WORDS}")
        _require(
            self.semantic in ("off", "strict") or _matches(_BOUND, self.semantic),
            "semantic: off, strict, or a bound such as 0.005, at most 0.5",
        )

    @property
    def semantic_bound(self) -> float | None:
        """The largest share of wrong answers wanted among semantic hits, None where it is off."""
        if self.semantic == "off":
            return None
        return STRICT_BOUND if self.semantic == "strict" else float(self.semantic)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutOffs:
    """Purges, as times in ms: of everything, by model, by tag digest, by short key."""

    all_ms: int = 0
    models: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(_is_time(self.all_ms), "cut-off")
        groups = ((self.models, _is_model), (self.tags, _is_tag), (self.keys, _is_short_key))
        for times, is_name in groups:
            _require(isinstance(times, Mapping), "cut-offs")
            _require(all(is_name(n) and _is_time(t) for n, t in times.items()), "cut-offs")

    def name(self, header: Header) -> bool:
        """Whether one of them names an entry whose generation started at or before it."""
        started_ms = header.generation_started_ms
        if started_ms <= self.all_ms:
            return True
        if self.keys:
            source = header.source
            keys = (header.key,) if source is None else (header.key, source.key)
            if any(self.keys.get(short_key(key), -1) >= started_ms for key in keys):
                return True
        if self.models:
            models = (header.model, header.answered_by or header.model)
            if any(self.models.get(model, -1) >= started_ms for model in models):
                return True
        return bool(self.tags) and any(self.tags.get(tag, -1) >= started_ms for tag in header.tags)


@dataclass(frozen=True, kw_only=True, slots=True)
class Purge:
    """What is to be purged of a tenant: everything, or whatever one of these names.

    `tags` are digests, `keys` short or whole cache keys, in hex. What was made in the last
    `older_than_s` seconds is spared.
    """

    everything: bool = False
    older_than_s: int = 0
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(_is_time(self.older_than_s), "older_than_s: seconds")
        named = (*self.models, *self.tags, *self.keys)
        _require(self.everything != bool(named), "name keys, tags or models, or else everything")
        _require(len(named) <= MAX_CUT_OFFS, f"at most {MAX_CUT_OFFS} names in a purge")
        for model in self.models:
            _require(_is_model(model), "model: its name, without control characters")
        for tag in self.tags:
            _require(_is_tag(tag), "tag digest")
        for key in self.keys:
            _require(
                _is_short_key(key) or _is_hex(key, _KEY_HEX_CHARACTERS),
                f"key: the {SHORT_KEY_HEX_CHARACTERS} hexadecimal characters of Encore-Key",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlDocument:
    """Everything that is decided about one tenant. `keys` are by id.

    `longest_life_ms` is the longest that any entry made so far may live. `calibration` is the
    version of semantic match that the origin goes by, empty where it has none.
    """

    tenant: str
    revision: int
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    policy: Policy = Policy()
    cut_offs: CutOffs = CutOffs()
    longest_life_ms: int = 0
    calibration: str = ""
    templates: Templates = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            check_tenant(self.tenant)
            object.__setattr__(self, "templates", register(self.policy.templates))
        except (TypeError, ValueError) as exc:
            raise ControlError(str(exc)) from exc
        _require(_is_time(self.revision) and _is_time(self.longest_life_ms), "revision")
        _require(_matches(_CALIBRATION, self.calibration), "calibration")
        _require(len(self.keys) <= MAX_API_KEYS, f"at most {MAX_API_KEYS} API keys")
        _require(all(id_ == key.id for id_, key in self.keys.items()), "key id")

    def role_of(self, key_id: str) -> str | None:
        """What the API key of this id may do, or None where there is no such key (any more)."""
        key = self.keys.get(key_id)
        return None if key is None else key.role

    @property
    def semantic_rule(self) -> str | None:
        """What decides semantic match now, as promoted entries name it; None where nothing may."""
        if not self.calibration or self.policy.semantic == "off":
            return None
        return f"{self.calibration}/{self.policy.semantic}"


Objection = Literal["purged", "not-encrypted", "recalibrated", "too-dissimilar"]


def objection(
    document: ControlDocument,
    header: Header,
    other_key: str | None = None,
    *,
    controls: Controls | None = None,
) -> Objection | None:
    """Why an entry of the tenant must not be used, or None. It is a miss then.

    `other_key` is the entry's by the other secret, while one is being replaced: a purge by either
    means the entry, and what was matched counts as purged: it names its source by one key alone.
    `controls` are those of the request that it is to answer.
    """
    cut_offs = document.cut_offs
    if cut_offs.name(header):
        return "purged"
    if document.policy.encrypted and header.encryption is None:
        return "not-encrypted"
    if other_key is not None and cut_offs.name(replace(header, key=other_key)):
        return "purged"
    if header.source is not None:
        if header.source.calibration != document.semantic_rule:
            return "recalibrated"
        if other_key is not None:
            return "purged"  # perhaps: by the other secret's key of its source
        if controls is not None and controls.refuses(header.source.similarity):
            return "too-dissimilar"
    return None


Strategy = Literal["exact", "normalised", "template", "semantic"]
"""What made two requests one: the request as it came, a profile that changed this one's text, a
template that it matched, or (a match of entries, never of keys) its meaning."""


def strategy_of(keyed: Strategy, header: Header) -> Strategy:
    """What made the request of a key that was `keyed` and that of the entry it found one."""
    return keyed if header.source is None else "semantic"


class Form(NamedTuple):
    """The canonical bytes of a request, and the strategy that made them."""

    canonical: bytes
    strategy: Strategy


def canonical_for(
    document: ControlDocument,
    *,
    endpoint: Endpoint,
    controls: Controls,
    fields: dict[str, Any],
) -> Form:
    """The canonical form of a tenant's request: by template, by profile, or as it came.

    Embeddings of one input have one form, however the input is wrapped and its vector encoded.

    Raises ClientError for a request that no key can be made of.
    """
    strategy: Strategy = "template"
    keyed, profile = templated(document.templates, endpoint, fields), None
    if keyed is None:
        if document.policy.normalisation != "exact":
            profile = document.policy.normalisation
        normalised = normalise(document.policy.normalisation, endpoint, fields)
        strategy = "exact" if normalised is fields else "normalised"
        keyed = keyed_fields(endpoint, normalised)
    data = canonical(
        tenant=document.tenant,
        scope=controls.scope,
        endpoint=endpoint.value,
        bucket=controls.bucket,
        fields=keyed,
        profile=profile,
        content_class=controls.content_class,
    )
    return Form(data, strategy)


def key_profile(document: ControlDocument) -> object:
    """What of a document decides keys: two documents of equal profiles give equal keys."""
    return document.policy.normalisation, dict(document.policy.templates)


def new_document(tenant: str, now_ms: int) -> ControlDocument:
    """The document of a tenant that has none, which purges whatever there is of it."""
    return ControlDocument(tenant=tenant, revision=now_ms, cut_offs=CutOffs(all_ms=now_ms))


def revised(document: ControlDocument, now_ms: int, **changes: Any) -> ControlDocument:
    """The document with `changes` and the next revision. Raises ControlError."""
    return replace(document, revision=max(document.revision + 1, now_ms), **changes)


def purged(document: ControlDocument, purge: Purge, now_ms: int) -> ControlDocument:
    """The document after a purge at `now_ms`. Raises ControlError."""
    old = document.cut_offs
    at_ms = max(0, now_ms - purge.older_than_s * 1000)
    horizon_ms = now_ms - document.longest_life_ms - _GRACE_MS
    groups = {
        "models": _cut_off(old.models, purge.models, at_ms),
        "tags": _cut_off(old.tags, purge.tags, at_ms),
        "keys": _cut_off(old.keys, map(short_key, purge.keys), at_ms),
    }
    times = sorted((t for group in groups.values() for t in group.values()), reverse=True)
    all_ms = max(
        old.all_ms,
        at_ms if purge.everything else 0,
        *times[MAX_CUT_OFFS:],
        *(t for t in times if t < horizon_ms),
    )
    kept = {name: {n: t for n, t in group.items() if t > all_ms} for name, group in groups.items()}
    return revised(document, now_ms, cut_offs=CutOffs(all_ms=all_ms, **kept))


def _cut_off(times: Mapping[str, int], names: Iterable[str], at_ms: int) -> dict[str, int]:
    # The store's clock may have been set back; a cut-off never moves back with it.
    return {**times, **{name: max(at_ms, times.get(name, 0)) for name in names}}


def encode(document: ControlDocument) -> bytes:
    """The document as compact JSON."""
    return json_text.dumps(_fields(document))


def _fields(document: ControlDocument) -> dict[str, Any]:
    policy, cut_offs = document.policy, document.cut_offs
    return {
        "v": VERSION,
        "tenant": document.tenant,
        "revision": document.revision,
        "keys": [[k.id, k.role, k.name, k.created_ms] for k in document.keys.values()],
        "policy": {
            "normalisation": policy.normalisation,
            "residency": policy.residency,
            "encrypted": policy.encrypted,
            "rate_limited": policy.rate_limited,
            "templates": dict(policy.templates),
            **({"lax_classes": list(policy.lax_classes)} if policy.lax_classes else {}),
            **({"semantic": policy.semantic} if policy.semantic != "strict" else {}),
        },
        "cut_offs": {
            "all": cut_offs.all_ms,
            "models": dict(cut_offs.models),
            "tags": dict(cut_offs.tags),
            "keys": dict(cut_offs.keys),
        },
        "longest_life_ms": document.longest_life_ms,
        **({"calibration": document.calibration} if document.calibration else {}),
    }


def decode(text: bytes | str, tenant: str) -> ControlDocument:
    """Read the document of `tenant`. Raises ControlError."""
    try:
        if isinstance(text, bytes):
            text = text.decode()  # json alone would also read UTF-16, UTF-32 and half pairs
        fields = _read(text)
        _require(fields["v"] == VERSION and type(fields["v"]) is int, "version")
        _require(fields["tenant"] == tenant, "another tenant's")
        cut_offs = fields["cut_offs"]
        keys = [
            ApiKey(id=id_, role=role, name=name, created_ms=created_ms)
            for id_, role, name, created_ms in fields["keys"]
        ]
        document = ControlDocument(
            tenant=tenant,
            revision=fields["revision"],
            keys=MappingProxyType({key.id: key for key in keys}),
            policy=_policy(fields["policy"]),
            cut_offs=CutOffs(
                all_ms=cut_offs["all"],
                models=cut_offs["models"],
                tags=cut_offs["tags"],
                keys=cut_offs["keys"],
            ),
            longest_life_ms=fields["longest_life_ms"],
            calibration=fields.get("calibration", ""),
        )
        # Repeated keys, fields this version does not know or would not leave out: all end here.
        _require(_fields(document) == fields, "fields")
    except ControlError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ControlError("control document") from exc
    return document


def _policy(fields: dict[str, Any]) -> Policy:
    return Policy(**{**fields, "lax_classes": tuple(fields.get("lax_classes", ()))})
