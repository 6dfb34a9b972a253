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
3. Where cut-offs are too many, the oldest become one for everything: too much is purged, never too
   little. A cut-off is dropped only when no entry from before it can live.
4. What cannot be decoded raises `ControlError`; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from shared.canonical import canonical
from shared.controls import Controls
from shared.envelope import TAG_HEX_CHARACTERS, Header
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

_GRACE_MS = 3_600_000
"""Added to the longest life: a generation takes time, and clocks differ."""
_MAX_INTEGER = 2**53 - 1
_KEY_ID = re.compile(rf"[0-9a-f]{{{KEY_ID_HEX_CHARACTERS}}}")
_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{0,{MAX_NAME_CHARACTERS}}}")
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


class ControlError(ValueError):
    """Not a control document this version can read, or a change that cannot be made."""


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INTEGER


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and all(c in "0123456789abcdef" for c in text)


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
        _require(type(self.id) is str and _KEY_ID.fullmatch(self.id) is not None, "key id")
        _require(self.role in ROLES, f"role: one of {', '.join(ROLES)}")
        _require(
            type(self.name) is str and _NAME.fullmatch(self.name) is not None,
            f"name: at most {MAX_NAME_CHARACTERS} characters, none of them a control character",
        )
        _require(_is_time(self.created_ms), "created")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the operator decided for a tenant.

    `normalisation` is a profile of `shared.normalisation`; `residency` `origin-only` keeps its
    entries out of KV; `encrypted` keeps them sealed at rest; `rate_limited` subjects it to the
    platform's rate limit where one is bound; `templates` maps `name@version` to a pattern.
    """

    normalisation: str = "exact"
    residency: str = "edge"
    encrypted: bool = False
    rate_limited: bool = True
    templates: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.normalisation in PROFILES, f"normalisation: one of {', '.join(PROFILES)}")
        _require(self.residency in RESIDENCIES, f"residency: one of {', '.join(RESIDENCIES)}")
        _require(type(self.encrypted) is bool, "encrypted: true or false")
        _require(type(self.rate_limited) is bool, "rate_limited: true or false")
        _require(isinstance(self.templates, Mapping), "templates: an object")
        for label, pattern in self.templates.items():
            _require(type(label) is str and type(pattern) is str, "templates: texts")


@dataclass(frozen=True, kw_only=True, slots=True)
class CutOffs:
    """Purges, as times in ms: of everything, by model, by tag digest, by short key."""

    all_ms: int = 0
    models: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(_is_time(self.all_ms), "cut-off")
        for times in (self.models, self.tags, self.keys):
            _require(isinstance(times, Mapping), "cut-offs")
            _require(all(type(n) is str and _is_time(t) for n, t in times.items()), "cut-offs")

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
            models = (header.model, header.answered_by)
            if any(self.models.get(model or "", -1) >= started_ms for model in models):
                return True
        return bool(self.tags) and any(self.tags.get(tag, -1) >= started_ms for tag in header.tags)


@dataclass(frozen=True, kw_only=True, slots=True)
class Purge:
    """What is to be purged of a tenant: everything, or whatever one of these names.

    `tags` are digests, `keys` short or whole cache keys, in hex.
    """

    everything: bool = False
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = (*self.models, *self.tags, *self.keys)
        _require(self.everything != bool(named), "a purge names everything, or something")
        _require(len(named) <= MAX_CUT_OFFS, f"at most {MAX_CUT_OFFS} names in a purge")
        for tag in self.tags:
            _require(_is_hex(tag, TAG_HEX_CHARACTERS), "tag digest")
        for key in self.keys:
            _require(
                _is_hex(short_key(key), SHORT_KEY_HEX_CHARACTERS),
                f"key: the {SHORT_KEY_HEX_CHARACTERS} hexadecimal characters of Encore-Key",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlDocument:
    """Everything that is decided about one tenant. `keys` are by id.

    `longest_life_ms` is the longest that any entry made so far may live.
    """

    tenant: str
    revision: int
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    policy: Policy = Policy()
    cut_offs: CutOffs = CutOffs()
    longest_life_ms: int = 0
    templates: Templates = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            check_tenant(self.tenant)
            object.__setattr__(self, "templates", register(self.policy.templates))
        except (TypeError, ValueError) as exc:
            raise ControlError(str(exc)) from exc
        _require(_is_time(self.revision) and _is_time(self.longest_life_ms), "revision")
        _require(len(self.keys) <= MAX_API_KEYS, f"at most {MAX_API_KEYS} API keys")

    def role_of(self, key_id: str) -> str | None:
        """What the API key of this id may do, or None where there is no such key (any more)."""
        key = self.keys.get(key_id)
        return None if key is None else key.role


Objection = Literal["purged", "not-encrypted"]


def objection(document: ControlDocument, header: Header) -> Objection | None:
    """Why an entry of the tenant must not be used, or None. It is a miss then."""
    if document.cut_offs.name(header):
        return "purged"
    if document.policy.encrypted and header.encryption is None:
        return "not-encrypted"
    return None


def canonical_for(
    document: ControlDocument,
    *,
    endpoint: Endpoint,
    controls: Controls,
    fields: dict[str, Any],
) -> bytes:
    """The canonical bytes of a tenant's request: by template, by profile, or as it came.

    Raises ClientError for a request that no key can be made of.
    """
    keyed = templated(document.templates, endpoint, fields)
    if keyed is None:
        keyed = normalise(document.policy.normalisation, endpoint, fields)
    return canonical(
        tenant=document.tenant,
        scope=controls.scope,
        endpoint=endpoint.value,
        bucket=controls.bucket,
        fields=keyed,
    )


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
    horizon_ms = now_ms - document.longest_life_ms - _GRACE_MS
    all_ms = max(old.all_ms, now_ms if purge.everything else 0)
    names = {
        "models": {**old.models, **dict.fromkeys(purge.models, now_ms)},
        "tags": {**old.tags, **dict.fromkeys(purge.tags, now_ms)},
        "keys": {**old.keys, **dict.fromkeys(map(short_key, purge.keys), now_ms)},
    }
    times = sorted((t for group in names.values() for t in group.values()), reverse=True)
    if len(times) > MAX_CUT_OFFS:
        all_ms = max(all_ms, times[MAX_CUT_OFFS])
    kept = {
        group: {n: t for n, t in by_name.items() if t > all_ms and t >= horizon_ms}
        for group, by_name in names.items()
    }
    return revised(document, now_ms, cut_offs=CutOffs(all_ms=all_ms, **kept))


def encode(document: ControlDocument) -> bytes:
    """The document as compact JSON."""
    policy, cut_offs = document.policy, document.cut_offs
    fields = {
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
        },
        "cut_offs": {
            "all": cut_offs.all_ms,
            "models": dict(cut_offs.models),
            "tags": dict(cut_offs.tags),
            "keys": dict(cut_offs.keys),
        },
        "longest_life_ms": document.longest_life_ms,
    }
    return _encode(fields).encode()


def decode(text: bytes | str, tenant: str) -> ControlDocument:
    """Read the document of `tenant`. Raises ControlError."""
    try:
        fields = json.loads(text)
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
            policy=Policy(**fields["policy"]),
            cut_offs=CutOffs(
                all_ms=cut_offs["all"],
                models=cut_offs["models"],
                tags=cut_offs["tags"],
                keys=cut_offs["keys"],
            ),
            longest_life_ms=fields["longest_life_ms"],
        )
        _require(len(keys) == len(document.keys), "repeated key")
    except ControlError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ControlError("control document") from exc
    return document
