"""The commands that change what is decided about a tenant: `encore keys`, `policy` and `purge`.

They act on Redis directly, as the origin does and by the same rules, so they need no origin that
runs. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from origin.purge_requests import purge_of
from origin.settings import Settings, load_settings
from origin.stores.control_contract import EVERY_TENANT
from origin.times import utc
from shared.control_document import (
    RESIDENCIES,
    ROLES,
    ApiKey,
    ControlDocument,
    ControlError,
    Policy,
    Purge,
    revised,
)
from shared.errors import EncoreError
from shared.keys import SHOWN_ID_CHARACTERS, check_tenant, key_id, make_api_key
from shared.normalisation import PROFILES

if TYPE_CHECKING:
    from origin.audit import Act
    from origin.control import Changed, Control, EdgeState
    from origin.dry_run import DryRun

T = TypeVar("T")

TIMEOUT_S = 5.0
NOTHING: Mapping[str, Any] = {}
NO_REDIS = "Redis does not answer at REDIS_URL; start it, or set REDIS_URL to the one that runs"
EDGE_DELAY = "within 90 s (60 s until KV shows it everywhere, 30 s of memory)"

keys_app = typer.Typer(help="API keys for clients.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]


class CommandError(Exception):
    """A command refuses; the text says why, and what to do."""


@keys_app.command("create")
def create_key(
    tenant: Tenant,
    *,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "client",
    name: Annotated[str, typer.Option(help="What to know it by in lists.")] = "",
) -> None:
    """Print a new API key of TENANT. It is kept nowhere: this is the only time it is shown."""
    settings = _settings_for(tenant)
    key = make_api_key(settings.keys.current, tenant, secrets.token_bytes(15))
    id_ = key_id(key)

    def add(document: ControlDocument, now_ms: int) -> ControlDocument:
        added = ApiKey(id=id_, role=role, name=name, created_ms=now_ms)
        return revised(document, now_ms, keys={**document.keys, id_: added})

    act = _mine("key-create", {"key": id_[:SHOWN_ID_CHARACTERS], "key_role": role})
    changed = _act(settings, lambda control: control.change(tenant, add, create=True, act=act))
    sys.stdout.write(key + "\n")  # alone on standard output, for scripts
    _say_edge(changed.edge)


@keys_app.command("list")
def list_keys(
    tenant: Tenant,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole ids.")] = False,
) -> None:
    """List TENANT's API keys: the id of each, never the key."""
    document = _document(tenant)
    keys = sorted(document.keys.values(), key=lambda key: key.created_ms)
    if as_json:
        rows = [
            {"id": key.id, "role": key.role, "name": key.name, "created": utc(key.created_ms)}
            for key in keys
        ]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    table = Table("id", "role", "name", "created (UTC)")
    for key in keys:
        table.add_row(key.id[:SHOWN_ID_CHARACTERS], key.role, Text(key.name), utc(key.created_ms))
    out.print(table)


@keys_app.command("revoke")
def revoke_key(
    tenant: Tenant,
    key: Annotated[str, typer.Argument(metavar="ID", help="The id, or enough of its beginning.")],
) -> None:
    """Revoke one of TENANT's API keys."""
    revoked: list[ApiKey] = []
    facts: dict[str, Any] = {}

    def remove(document: ControlDocument, now_ms: int) -> ControlDocument:
        found = [held for held in document.keys.values() if key and held.id.startswith(key)]
        if len(found) != 1:
            what = f"begins {len(found)} ids" if found else "begins no id"
            raise ControlError(f"ID {key!r} {what}; `encore keys list {tenant}` shows them")
        revoked[:] = found
        facts["key"] = found[0].id[:SHOWN_ID_CHARACTERS]
        kept = {id_: held for id_, held in document.keys.items() if id_ != found[0].id}
        return revised(document, now_ms, keys=kept)

    act = _mine("key-revoke", facts)
    changed = _act(_settings_for(tenant), lambda control: control.change(tenant, remove, act=act))
    out.print(
        f"Revoked {revoked[0].id[:SHOWN_ID_CHARACTERS]} of {tenant}: refused by the origin now, "
        f"{_edge_words(changed.edge)}.",
        highlight=False,
        soft_wrap=True,
    )


def policy(
    tenant: Tenant,
    *,
    normalisation: Annotated[
        str | None, typer.Option(help=f"Which requests are one: {', '.join(PROFILES)}.")
    ] = None,
    residency: Annotated[
        str | None, typer.Option(help=f"Where entries are kept: {', '.join(RESIDENCIES)}.")
    ] = None,
    encrypted: Annotated[
        bool | None, typer.Option("--encrypted/--not-encrypted", help="Seal entries at rest.")
    ] = None,
    rate_limited: Annotated[
        bool | None,
        typer.Option("--rate-limited/--not-rate-limited", help="Hold it to the rate limit."),
    ] = None,
    semantic: Annotated[
        str | None,
        typer.Option(
            metavar="off|strict|BOUND",
            help="Semantic match: off, strict, or how large a share of its hits may be wrong.",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME@VERSION=PATTERN", help="Register a template key."),
    ] = None,
    remove_template: Annotated[
        list[str] | None, typer.Option(metavar="NAME@VERSION", help="Remove one.")
    ] = None,
    lax_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Let a content class's lifetime hold where it is the longer one."
        ),
    ] = None,
    remove_lax_class: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Let it not any more.")
    ] = None,
) -> None:
    """Show TENANT's policy, or change what the options name."""
    given = {
        "normalisation": normalisation,
        "residency": residency,
        "encrypted": encrypted,
        "rate_limited": rate_limited,
        "semantic": semantic,
    }
    changes = {field: value for field, value in given.items() if value is not None}
    added = dict(map(_template, template or ()))
    removed = remove_template or []
    if not (changes or added or removed or lax_class or remove_lax_class):
        _show(_document(tenant).policy)
        return

    def change(document: ControlDocument, now_ms: int) -> ControlDocument:
        templates = dict(document.policy.templates)
        for label in removed:
            if templates.pop(label, None) is None:
                raise ControlError(f"--remove-template {label!r}: {tenant} has no such template")
        listed = dict.fromkeys((*document.policy.lax_classes, *(lax_class or ())))
        for name in remove_lax_class or ():
            if name not in listed:
                raise ControlError(f"--remove-lax-class {name!r}: {tenant} does not list it")
            del listed[name]
        changed: dict[str, Any] = {
            **changes,
            "templates": templates | added,
            "lax_classes": tuple(listed),
        }
        return revised(document, now_ms, policy=replace(document.policy, **changed))

    facts = {
        **changes,
        "templates": len(added),
        "removed_templates": len(removed),
        "lax_classes": list(lax_class or ()),
        "removed_lax_classes": list(remove_lax_class or ()),
    }
    act = _mine("policy-change", facts)
    changed = _act(_settings_for(tenant), lambda control: control.change(tenant, change, act=act))
    _show(changed.document.policy)
    _say_edge(changed.edge)


def purge(
    tenant: Annotated[str | None, typer.Argument(metavar="TENANT", help="Whose entries.")] = None,
    *,
    key: Annotated[
        list[str] | None, typer.Option(metavar="DIGITS", help="What Encore-Key says.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A tag of Encore-Tags.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A model's name.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All of it.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="7d", help="Only what was made longer ago: a number and s, m, h or d."
        ),
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Of every tenant; with --everything.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many entries that would be; change nothing.")
    ] = False,
) -> None:
    """Purge TENANT's entries by key, tag, model, or all of them; options may be repeated."""
    if all_tenants:
        if tenant is not None or key or tag or model or older_than or not everything:
            raise CommandError("--all-tenants goes with --everything, and with nothing else")
        settings = load_settings()
        if dry_run:
            _say_found(*_dry_run(settings, EVERY_TENANT, Purge(everything=True)))
            return
        me = _mine("purge").actor
        for changed in _act(
            settings, lambda control: control.purge_everywhere(Purge(everything=True), me)
        ):
            _say_purged(changed)
        return
    if tenant is None:
        raise CommandError("TENANT is missing; or did you mean --all-tenants --everything?")
    older_than_s = 0 if older_than is None else duration_s("--older-than", older_than)
    everything = everything or (older_than is not None and not (key or tag or model))
    if everything == bool(key or tag or model):
        raise CommandError("name what to purge by --key, --tag, --model, or else by --everything")
    settings = _settings_for(tenant)
    try:
        named = purge_of(
            settings.keys,
            tenant,
            everything=everything,
            older_than_s=older_than_s,
            models=model or (),
            tags=tag or (),
            keys=key or (),
        )
    except ControlError as error:
        raise CommandError(str(error)) from error
    if dry_run:
        _say_found(*_dry_run(settings, tenant, named))
        return
    me = _mine("purge").actor
    _say_purged(_act(settings, lambda control: control.purge(tenant, named, me)), older_than_s)


def _dry_run(settings: Settings, tenant: str, purge: Purge) -> tuple[str, DryRun]:
    from origin.dry_run import dry_run  # noqa: PLC0415 - quick start
    from origin.stores.redis_store import RedisStore  # noqa: PLC0415

    me = _mine("purge").actor

    async def count(control: Control, redis_url: str) -> DryRun:
        store = RedisStore.from_url(redis_url, prefix=settings.key_prefix, timeout_s=TIMEOUT_S)
        try:
            return await dry_run(control, store, tenant, purge, me)
        finally:
            await store.close()

    return tenant, act_on_redis(settings, count)


def duration_s(option: str, text: str, *, else_: str = "") -> int:
    """Seconds of an option's `90s`, `15m` (or `15min`), `12h` or `7d`. Raises CommandError.

    `else_` is what else the option takes, for its words.
    """
    match = re.fullmatch(r"([0-9]{1,9})(s|m|min|h|d)", text)
    if match is None:
        raise CommandError(f"{option} {text!r}: a number and s, m, h or d, such as 7d{else_}")
    return int(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}[match[2]]


def _settings_for(tenant: str) -> Settings:
    settings = load_settings()
    try:
        check_tenant(tenant)
    except ValueError as error:
        raise CommandError(f"TENANT: {error}") from error
    return settings


def _mine(action: str, facts: Mapping[str, Any] = NOTHING) -> Act:
    """What the audit log says of who runs this command."""
    from origin.audit import Act, Actor  # noqa: PLC0415 - quick start

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # nobody has this number
        user = str(os.getuid())
    actor = Actor(name=f"cli:{user}@{socket.gethostname()}")
    return Act(action=action, actor=actor, facts=facts)


def _act(settings: Settings, act: Callable[[Control], Awaitable[T]]) -> T:
    """What `act` gives on the control documents that the settings lead to. Raises CommandError."""
    return act_on_redis(settings, lambda control, _: act(control))


def act_on_redis(settings: Settings, act: Callable[[Control, str], Awaitable[T]]) -> T:
    """What `act` gives, given the control documents and the URL of L1. Raises CommandError."""
    from origin.control import Control  # noqa: PLC0415 - quick start
    from origin.embedded_redis import redis_for  # noqa: PLC0415
    from origin.stores.redis_control import RedisControlStore  # noqa: PLC0415

    # What went wrong is said in a command's own words.
    logging.getLogger("origin").setLevel(logging.ERROR)

    async def run(redis_url: str) -> T:
        url = settings.control_url(redis_url)
        store = RedisControlStore.from_url(url, prefix=settings.key_prefix, timeout_s=TIMEOUT_S)
        control = Control.from_settings(settings, store)
        try:
            return await act(control, redis_url)
        finally:
            await control.close()

    try:
        with redis_for(settings) as url:
            return asyncio.run(run(url))
    except ControlError as error:
        raise CommandError(str(error)) from error
    except EncoreError as error:
        raise CommandError(_FIXES.get(error.code or "", error.message)) from error


_FIXES = {
    "store_unavailable": "Redis does not answer at REDIS_URL. Nothing was changed.",
    "control_unavailable": f"{NO_REDIS}. Nothing was acknowledged.",
    "no_tenant": "there is no such tenant; `encore keys create TENANT` makes one with its first "
    "key",
}


def _document(tenant: str) -> ControlDocument:
    document = _act(_settings_for(tenant), lambda control: control.document(tenant))
    if document is None:
        raise CommandError(_FIXES["no_tenant"])
    return document


def _template(text: str) -> tuple[str, str]:
    label, equals, pattern = text.partition("=")
    if not equals:
        raise CommandError(f"--template {text!r}: not NAME@VERSION=PATTERN")
    return label, pattern


def _show(policy: Policy) -> None:
    lines = [
        f"normalisation = {policy.normalisation}",
        f"residency = {policy.residency}",
        f"encrypted = {json.dumps(policy.encrypted)}",
        f"rate_limited = {json.dumps(policy.rate_limited)}",
        f"semantic = {policy.semantic}",
        *(f"template {label} = {policy.templates[label]}" for label in sorted(policy.templates)),
        *(f"lax_class = {name}" for name in policy.lax_classes),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _say_purged(changed: Changed, older_than_s: int = 0) -> None:
    cut_off = utc(changed.at_ms - older_than_s * 1000)
    out.print(
        f"Purged {changed.document.tenant} up to {cut_off}: by the origin now, "
        f"{_edge_words(changed.edge)}.",
        highlight=False,
        soft_wrap=True,
    )


def _say_found(tenant: str, found: DryRun) -> None:
    whose = "all tenants" if tenant == EVERY_TENANT else tenant
    at_least = "" if found.is_complete else "at least "
    entries = "entry" if found.entries == 1 else "entries"
    out.print(
        f"Would purge {at_least}{found.entries:,} {entries} of {whose}, "
        f"{found.size_bytes:,} bytes, at the origin. Nothing was changed.",
        highlight=False,
        soft_wrap=True,
    )


def _edge_words(edge: EdgeState) -> str:
    if edge == "acknowledged":
        return f"by the edge {EDGE_DELAY}"
    why = "did not answer" if edge == "pending" else "is not set"
    return (
        f"by the edge {EDGE_DELAY} after the origin next tells it (ENCORE_EDGE_URL {why}, so it "
        "was not told at once)"
    )


def _say_edge(edge: EdgeState) -> None:
    """Tell, on standard error, of an edge that was to be told and could not be."""
    if edge == "pending":
        err.print(
            "The edge at ENCORE_EDGE_URL did not answer; it hears of this from the origin.",
            style="yellow",
            soft_wrap=True,
        )
