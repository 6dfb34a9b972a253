"""The origin's settings: environment and `encore.toml` in, a frozen value or a clear refusal out.

Building a `Settings` reads nothing but its arguments. `load_settings` alone reads the environment
and the file (the environment wins; an empty variable counts as unset), refuses what it does not
know, and turns every complaint into one `SettingsError` that names the variable, the value (never
a secret's) and the fix. In development mode it makes the secret that is missing, once.

`docs/configuration.md` is generated from the fields below (`encore settings --markdown`).
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from origin.departure import Patience
from origin.lifetimes import Tiers
from origin.logs import LogFormat
from origin.prices import Prices
from origin.quiet_hours import QuietHours
from shared.freshness import Lifetimes
from shared.keys import (
    LOOPBACK_HOSTS,
    MIN_SECRET_CHARACTERS,
    KeyRings,
    check_secret,
    check_tenant,
    key_rings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

PREFIX = "ENCORE_"
CONFIG_FILE = "encore.toml"

_UNPREFIXED = {"redis_url": "REDIS_URL"}
# The test suite's own switch, and what `encore warm` is told as a client.
_NOT_SETTINGS = frozenset({"ENCORE_REQUIRE_ALL", "ENCORE_API_KEY"})
_IN_ENVIRONMENT = "env:"
_REDIS_SCHEMES = frozenset({"redis", "rediss", "unix", "redis+cluster", "rediss+cluster"})
_WORDS = {
    "extra_forbidden": "there is no such key",
    "model_type": "should be an object",
    "dict_type": "should be an object",
    "tuple_type": "should be an array",
    "list_type": "should be an array",
}
"""What pydantic says in Python's terms."""
_DAY_S = 86_400
_MIB = 1 << 20


SHARED_PATHS = (
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/images/variations",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/*",
    "/v1/score",
)
"""What tenants may ask of one account without meeting: it lists nothing and changes nothing, and
what it keeps is found by an id that cannot be guessed."""


class SettingsError(Exception):
    """A part refuses to start: each line names a variable, what is wrong with it and the fix."""


class Upstream(BaseModel):
    """An OpenAI-compatible API that answers misses. A key is `env:NAME`, or written out."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str
    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(("*",), min_length=1)
    api_key: SecretStr | None = None
    tenant_api_keys: dict[str, SecretStr] = {}
    shared_paths: tuple[str, ...] = SHARED_PATHS
    timeout_s: float = Field(120.0, gt=0, allow_inf_nan=False)

    def __str__(self) -> str:
        return f"{self.base_url} ({' '.join(self.models)})"

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        return http_url(value)

    @field_validator("api_key")
    @classmethod
    def _header_text(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else _upstream_key(value)

    @field_validator("tenant_api_keys")
    @classmethod
    def _of_tenants(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        try:
            return {check_tenant(tenant): _upstream_key(key) for tenant, key in value.items()}
        except ValueError:  # quotes what may be a key in the wrong place
            raise ValueError("not a table of tenants' names and their keys") from None


class Settings(BaseModel):
    """Everything an operator decides. Durations are seconds, sizes bytes."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    mode: Literal["production", "development"] = Field(
        "production",
        description="`development` accepts the key `sk-encore-dev` and binds to loopback only; "
        "`encore dev` sets it.",
    )
    secret: SecretStr = Field(
        description="What origin and edge share, at least 32 characters: cache keys, API keys and "
        "their trust in each other derive from it. Required in production; development mode makes "
        "one and keeps it in the state folder.",
    )
    previous_secret: SecretStr | None = Field(
        None,
        description="While a secret is being replaced, the one before it: what was made with it "
        "is still accepted and read.",
    )
    state_dir: Path = Field(
        Path(".encore"),
        description="Folder for what this machine keeps: embedded Redis data, development secret.",
    )

    origin_host: str = Field("127.0.0.1", min_length=1, description="Address the origin binds to.")
    origin_port: int = Field(8000, ge=1, le=65_535, description="Port of the origin.")
    edge_port: int = Field(8787, ge=1, le=65_535, description="Port of the local edge.")
    origin_url: str | None = Field(
        None,
        description="Where the local edge finds the origin; by default `origin_host` and "
        "`origin_port` of this machine.",
    )
    edge_url: str | None = Field(
        None,
        description="Where control documents (keys, policies, purges) are pushed to at once. "
        "Without it the edge fetches a new one when an answer of the origin tells it of one.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    log_format: LogFormat = Field(
        "text", description="`text` for people, or `json`: an object a line. Neither has content."
    )

    redis_url: SecretStr | None = Field(
        None,
        description="Redis for L1, `redis://`, `rediss://` or `unix://`; for a Cluster "
        "`redis+cluster://` or `rediss+cluster://` and any node of it. Without it a Redis server "
        "is started for you.",
    )
    control_redis_url: SecretStr | None = Field(
        None,
        description="Redis for control documents (keys, policies, purges), where it is not to be "
        "that of L1.",
    )
    l1: Literal["redis", "off"] = Field(
        "redis",
        description="`off` keeps no answers in Redis: the edge (Workers KV) alone caches. Control "
        "documents and who may write to KV stay in Redis, and `REDIS_URL` is not needed beside "
        "`ENCORE_CONTROL_REDIS_URL`.",
    )
    key_prefix: str = Field(
        "encore",
        pattern=r"^[A-Za-z0-9_.-]{1,32}$",
        description="What every Redis key begins with, so that several caches can share one Redis.",
    )

    model: str | None = Field(
        None,
        min_length=1,
        description="Model to load: a Hugging Face id or a folder. Without it (and without an "
        "upstream) the small demo model that ships with Encore answers.",
    )
    model_name: str | None = Field(
        None, min_length=1, description="Name clients call the model by; by default its own."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number type of the model's weights."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?|spread)$",
        description="Where the model runs: `auto`, `cpu`, `mps`, `cuda`, `cuda:N`, or `spread` "
        "over all CUDA devices and then the CPU, for a model that one has no room for.",
    )
    chat_template: str | None = Field(
        None,
        description="Chat template (Jinja text, or a file that holds it) for a model without one.",
    )
    engine_concurrency: int = Field(
        4, ge=1, le=1024, description="Generations that run at once on the local model."
    )
    engine_queue_limit: int = Field(
        64, ge=0, description="Generations that may wait for their turn; more get a 503."
    )

    engine_batching: Literal["on", "off"] = Field(
        "off",
        description="`on` makes the tokens of several answers in one pass of the local model: more "
        "tokens a second, but what runs beside an answer may change its last bits, and so now and "
        "then a token. For models whose layers all attend to everything.",
    )
    prefix_cache: Literal["exact", "fast", "off"] = Field(
        "exact",
        description="What the local model keeps of the prompts it has read, by tenant and scope: "
        "`exact` whole blocks, with bit for bit the answers of `off`; `fast` every token, answers "
        "too, with nearly the same numbers only ([operations.md](operations.md#prefix-cache)).",
    )
    prefix_cache_bytes: int | None = Field(
        None,
        ge=0,
        description="The most that it may hold of them, in bytes and in each process; by default "
        "a tenth of the machine's memory (on CUDA: of what is free once the model is loaded), at "
        "most 2 GiB.",
    )
    pinned_prompts: Path | None = Field(
        None,
        description="System prompts that stay there once they have been read, in up to half of the "
        'room: a JSON file of names and texts, `{"support": "You are …"}`.',
    )

    context_window: int | None = Field(
        None,
        ge=2,
        description="Tokens that the local model holds of a conversation, prompt and answer, at "
        "most. Beyond them the oldest are forgotten and it goes on without end; unset, it ends at "
        "the model's context. Rotary models only ([operations.md](operations.md#context-window)).",
    )
    context_sink: int = Field(
        4, ge=0, description="The first tokens of a conversation that such a window never forgets."
    )

    upstream: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible API that answers misses instead of a local "
        "model, with or without `/v1`.",
    )
    upstream_api_key: SecretStr | None = Field(
        None, description="Key sent upstream. A client's own key never is."
    )
    upstream_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Longest silence of the upstream before a 504; a plain answer is one silence.",
    )
    upstreams: tuple[Upstream, ...] = Field(
        (),
        description="Several upstreams, told apart by the model's name, in place of "
        "`ENCORE_UPSTREAM`: a JSON array of objects, in `encore.toml` `[[upstreams]]` "
        "([operations.md](operations.md#upstreams)).",
    )

    embedder: str | None = Field(
        None,
        min_length=1,
        description="Embedding model: a sentence-transformers id or a folder; by default the "
        "bundled all-MiniLM-L6-v2.",
    )

    semantic: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Semantic match, for tenants whose policy allows it: `auto` where what it "
        "needs is installed, `on` refuses to start otherwise.",
    )
    semantic_model: str | None = Field(
        None,
        min_length=1,
        description="Encoder of semantic match: a sentence-transformers id or a folder; by default "
        "the bundled all-MiniLM-L6-v2. Another one needs a verifier and a calibration of its own.",
    )
    semantic_verifier: Path | None = Field(
        None, description="Model of the verifier; by default the one that ships with Encore."
    )
    semantic_calibration: Path | None = Field(
        None,
        description="What `encore calibrate` wrote; by default the calibration that ships with "
        "Encore.",
    )
    semantic_deadline_ms: int = Field(
        100,
        ge=1,
        le=10_000,
        description="How long a request waits for semantic match; then it is a miss.",
    )
    semantic_index: Literal["auto", "local", "redis"] = Field(
        "auto",
        description="Where questions are searched: `redis` in vector sets of Redis 8, `local` in "
        "each origin process, for up to `ENCORE_SEMANTIC_MAX_ENTRIES`; `auto` is `redis` where the "
        "connected Redis can.",
    )
    semantic_max_entries: int = Field(
        100_000,
        ge=1,
        description="Most questions that a process keeps in its own memory (about 2 KB each).",
    )

    ttl_s: int = Field(_DAY_S, ge=0, description="How long an answer is fresh.")
    max_ttl_s: int = Field(
        30 * _DAY_S, ge=1, description="The longest freshness a request may ask for."
    )
    tiers: Tiers = Field(
        Tiers(),
        description="Lifetimes by model, and content classes (`Encore-Class`) with their lifetime "
        "and sensitivity, as JSON ([operations.md](operations.md#how-long-and-where)).",
    )
    max_entry_bytes: int = Field(
        8 * _MIB, ge=1, description="Larger entries, compressed, are not stored."
    )
    stale_while_revalidate_s: int = Field(
        3600,
        ge=0,
        description="How long after its freshness an answer is served while a new one is made.",
    )
    stale_if_error_s: int = Field(
        _DAY_S,
        ge=0,
        description="How long after its freshness it is served where a new one cannot be made.",
    )
    prices: Prices = Field(
        Prices(),
        description="USD per million tokens by pattern of model names, as JSON "
        '(`{"gpt-4o*": {"input": 2.5, "output": 10}}`): what statistics tell money by.',
    )
    admit_after: int = Field(
        1,
        ge=1,
        description="Requests for an entry, counted over a day, that reach the origin from the "
        "edge before it is written to Workers KV.",
    )
    warm_limit: int = Field(
        20,
        ge=0,
        description="Most entries that are made anew, before they expire, each time the edge's "
        "cron asks for it; 0 for none.",
    )
    quiet_hours: QuietHours | None = Field(
        None,
        description="When traffic is low, every day, in UTC: `02:00-05:00`; it may pass midnight. "
        'Warm-ups that were asked for `"when": "quiet"` run then.',
    )
    max_cached_body_bytes: int = Field(
        _MIB, ge=1, description="Larger requests are answered, uncached."
    )
    max_body_bytes: int = Field(
        32 * _MIB, ge=1, le=1 << 30, description="Larger requests are refused with a 413."
    )
    request_deadline_s: float = Field(
        120.0,
        gt=0,
        le=3000,
        description="The longest an answer may take before a 504, and a request's body before a "
        "408.",
    )
    drain_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How long the origin takes requests after SIGTERM, with `/readyz` 503, so that "
        "what spreads requests over origins turns away from it first.",
    )
    max_requests: int = Field(
        2048,
        ge=1,
        description="Requests that may be under way at once in an origin process; more get a 503.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        # `origin_port = true` would otherwise become port 1.
        if isinstance(value, bool):
            raise ValueError("a boolean makes no sense here")  # noqa: TRY004 - pydantic's protocol
        return value

    @field_validator("tiers", mode="before")
    @classmethod
    def _tiers(cls, value: Any) -> Any:
        return Tiers.parse(value) if isinstance(value, str) else value

    @field_validator("prices", mode="before")
    @classmethod
    def _prices(cls, value: Any) -> Any:
        return Prices.parse(value) if isinstance(value, str) else value

    @field_validator("quiet_hours", mode="before")
    @classmethod
    def _window(cls, value: Any) -> Any:
        return QuietHours.parse(value) if isinstance(value, str) else value

    @field_validator(
        *("log_level", "log_format", "mode", "dtype", "l1", "prefix_cache", "engine_batching"),
        *("semantic", "semantic_index"),
        mode="before",
    )
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("secret", "previous_secret")
    @classmethod
    def _fit_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value

    @field_validator("upstream", "origin_url", "edge_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        return None if value is None else http_url(value)

    @field_validator("upstream_api_key")
    @classmethod
    def _upstream_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else _upstream_key(value)

    @field_validator("upstreams", mode="before")
    @classmethod
    def _json_array(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("not a JSON array") from None

    @field_validator("redis_url", "control_redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in _REDIS_SCHEMES or not (parts.netloc or parts.path):
            raise ValueError(
                "not a redis://, rediss:// or unix:// URL, nor a redis+cluster:// or "
                "rediss+cluster:// one"
            )
        return value

    @field_validator("chat_template")
    @classmethod
    def _jinja(cls, value: str | None) -> str | None:
        if value is not None and "{{" not in value and "{%" not in value:
            raise ValueError("neither the path of a readable file nor a Jinja template")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.mode == "development" and self.origin_host not in LOOPBACK_HOSTS:
            raise ValueError(
                f"ENCORE_ORIGIN_HOST={self.origin_host!r}: development mode accepts a well-known "
                "key and binds to 127.0.0.1 only; set ENCORE_MODE=production and ENCORE_SECRET"
            )
        if self.previous_secret == self.secret:
            raise ValueError(
                "ENCORE_PREVIOUS_SECRET is the same as ENCORE_SECRET; unset it, or set a new "
                "ENCORE_SECRET"
            )
        if self.upstream is not None and self.model is not None:
            raise ValueError(
                f"ENCORE_UPSTREAM={self.upstream!r} and ENCORE_MODEL={self.model!r} exclude each "
                "other; unset one"
            )
        if self.upstream is None and self.upstream_api_key is not None:
            raise ValueError("ENCORE_UPSTREAM_API_KEY is set without ENCORE_UPSTREAM; set both")
        if self.upstreams and (self.upstream is not None or self.model is not None):
            other = "ENCORE_MODEL" if self.upstream is None else "ENCORE_UPSTREAM"
            raise ValueError(f"ENCORE_UPSTREAMS and {other} exclude each other; unset one")
        if self.context_window is not None and self.engine_batching == "on":
            raise ValueError(
                f"ENCORE_CONTEXT_WINDOW={self.context_window} and ENCORE_ENGINE_BATCHING=on "
                "exclude each other; unset one"
            )
        if self.ttl_s > self.max_ttl_s:
            raise ValueError(
                f"ENCORE_TTL_S={self.ttl_s} is more than ENCORE_MAX_TTL_S={self.max_ttl_s}"
            )
        if self.max_cached_body_bytes > self.max_body_bytes:
            raise ValueError(
                f"ENCORE_MAX_CACHED_BODY_BYTES={self.max_cached_body_bytes} is more than "
                f"ENCORE_MAX_BODY_BYTES={self.max_body_bytes}"
            )
        return self

    @property
    def lifetimes(self) -> Lifetimes:
        """How long answers live where no tier says otherwise."""
        return Lifetimes(
            ttl_s=self.ttl_s,
            stale_while_revalidate_s=self.stale_while_revalidate_s,
            stale_if_error_s=self.stale_if_error_s,
            max_ttl_s=self.max_ttl_s,
        )

    @property
    def local_origin_url(self) -> str:
        """Where this machine finds the origin that these settings start."""
        host = f"[{self.origin_host}]" if ":" in self.origin_host else self.origin_host
        return f"http://{host}:{self.origin_port}"

    @property
    def development(self) -> bool:
        """Whether the well-known development key is accepted."""
        return self.mode == "development"

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """Who answers misses, in order; empty where a local model does."""
        if self.upstream is None:
            return self.upstreams
        only = Upstream(
            base_url=self.upstream,
            api_key=self.upstream_api_key,
            timeout_s=self.upstream_timeout_s,
        )
        return (only,)

    @property
    def patience(self) -> Patience:
        """How long a process that is told to stop takes for each step of it."""
        return Patience(drain_s=self.drain_s, finish_s=self.request_deadline_s)

    @property
    def keys(self) -> KeyRings:
        """The keys derived from the secrets."""
        previous = self.previous_secret
        return key_rings(
            self.secret.get_secret_value(),
            None if previous is None else previous.get_secret_value(),
        )

    def control_url(self, redis_url: str) -> str:
        """Where control documents are, given where L1 is."""
        own = self.control_redis_url
        return redis_url if own is None else own.get_secret_value()

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with `changes`, validated like any other."""
        return Settings.model_validate({**self.model_dump(), **changes})


def http_url(value: str) -> str:
    """Check a base URL, and return it without slashes at its end. Raises ValueError."""
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in this URL (see ENCORE_UPSTREAM_API_KEY)")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http:// or https:// URL with a host")
    if any(character.isspace() for character in value):
        raise ValueError("a URL has no spaces")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no query and no fragment")
    _ = parts.port  # raises ValueError when it is not a port
    return value.rstrip("/")


def load_settings(
    environ: Mapping[str, str] | None = None, directory: Path | None = None, **overrides: Any
) -> Settings:
    """Read the settings of this process, or raise SettingsError.

    `overrides` win over `environ` (the process's by default), which wins over `encore.toml` in
    `directory` (the working directory by default). Development mode without a secret writes one.
    """
    environ = os.environ if environ is None else environ
    directory = Path.cwd() if directory is None else directory
    complaints: list[str] = []
    values: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for name, value in _read_file(directory / CONFIG_FILE, complaints).items():
        values[name], labels[name] = value, f"{CONFIG_FILE}: {name}"
    for name, value in _read_environment(environ, complaints).items():
        values[name], labels[name] = value, variable(name)
    values.update(overrides)
    values.update(_with_keys(values.get("upstreams"), environ, complaints))
    if complaints:
        raise SettingsError("\n".join(complaints))
    if isinstance(template := values.get("chat_template"), str):
        values["chat_template"] = _template_text(template, directory)
    if isinstance(mode := values.get("mode"), str) and mode.strip().lower() == "development":
        state_dir = directory / values.get("state_dir", Settings.model_fields["state_dir"].default)
        if "secret" not in values:
            values["secret"] = development_secret(state_dir)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_complaints(error, values, labels))) from None


def development_secret(state_dir: Path) -> str:
    """Return the secret of this checkout's development mode, made on first use (0600)."""
    path = state_dir / "dev-secret"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        fresh = state_dir / f"dev-secret.{os.getpid()}"
        if not path.exists():
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32))
            # Linking fails where another process was first: all of them then read the same one.
            try:
                path.hardlink_to(fresh)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"ENCORE_STATE_DIR={str(state_dir)!r}: cannot keep the development secret there "
            f"({error.strerror}); choose a folder you may write to, or set ENCORE_SECRET"
        ) from error


def variable(name: str) -> str:
    """Return the environment variable of the setting `name`."""
    return _UNPREFIXED.get(name, PREFIX + name.upper())


def markdown() -> str:
    """Return the configuration reference, docs/configuration.md."""
    rows = [
        f"| `{variable(name)}` | {_default_text(field)} | {field.description} {_bounds_text(field)}"
        for name, field in Settings.model_fields.items()
    ]
    lines = [
        "# Configuration",
        "",
        "Generated by `encore settings --markdown`; do not edit by hand.",
        "",
        "Each setting is an environment variable or a key of `encore.toml` in the working folder",
        "(the name in lower case without `ENCORE_`: `origin_port = 9000`). The environment wins;",
        "an empty variable counts as unset. Unknown names and bad values are refused at start, by",
        "name. Keep secrets in the environment: they are never printed or logged.",
        "",
        "| Variable | Default | Meaning |",
        "| --- | --- | --- |",
        *(row.rstrip() + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _read_file(path: Path, complaints: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        complaints.append(f"{path}: cannot be read ({error})")
        return {}
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        complaints.append(f"{path}: not valid TOML: {error}")
        return {}
    known = set(Settings.model_fields)
    complaints += [
        f"{path.name}: unknown key {key!r}{_suggestion(key, known)}"
        for key in values.keys() - known
    ]
    return {key: value for key, value in values.items() if key in known}


def _read_environment(environ: Mapping[str, str], complaints: list[str]) -> dict[str, str]:
    names = {variable(name): name for name in Settings.model_fields}
    complaints += [
        f"{key}: unknown variable{_suggestion(key, set(names))}"
        for key in sorted(environ)
        if key.startswith(PREFIX) and key not in names and key not in _NOT_SETTINGS
    ]
    return {names[key]: value for key, value in environ.items() if key in names and value}


def _with_keys(upstreams: Any, environ: Mapping[str, str], complaints: list[str]) -> dict[str, Any]:
    """`upstreams`, if there are any, with the keys that are said to be in the environment."""
    try:
        upstreams = json.loads(upstreams) if isinstance(upstreams, str) else upstreams
    except (ValueError, RecursionError):
        return {}  # the field's own validator says what is wrong with it

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(item) for item in value]
        if isinstance(value, dict):
            return {name: resolved(item) for name, item in value.items()}
        if not (isinstance(value, str) and value.startswith(_IN_ENVIRONMENT)):
            return value
        name = value.removeprefix(_IN_ENVIRONMENT)
        if name.startswith(PREFIX):
            complaints.append(f"ENCORE_UPSTREAMS: {name} is a setting, no upstream's key")
        elif not environ.get(name):
            complaints.append(f"{name} is not set, but ENCORE_UPSTREAMS says that a key is in it")
        return environ.get(name, "")

    return {} if upstreams is None else {"upstreams": resolved(upstreams)}


def _suggestion(name: str, known: set[str]) -> str:
    if (bare := name.removeprefix(PREFIX)) in known:
        return f"; did you mean {bare}?"
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else "; see docs/configuration.md"


def _upstream_key(key: SecretStr) -> SecretStr:
    """A key that can stand in a header. Raises ValueError without it."""
    text = key.get_secret_value()
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("a key has at least one character, all of them visible ASCII")
    return key


def _template_text(value: str, directory: Path) -> str:
    if "{{" in value or "{%" in value:
        return value
    try:
        return (directory / value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return value  # the field's own validator says what is wrong with it


def _complaints(
    error: ValidationError, values: Mapping[str, Any], labels: Mapping[str, str]
) -> list[str]:
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        message = _WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            lines.append(message)
            continue
        name = str(item["loc"][0])
        if item["type"] == "missing" and name == "secret":
            lines.append(
                "ENCORE_SECRET is not set: edge and origin share it, at least "
                f"{MIN_SECRET_CHARACTERS} characters; `openssl rand -hex 32` makes one "
                "(or set ENCORE_MODE=development on this machine)"
            )
            continue
        label = labels.get(name, variable(name))
        # Of what is nested, the place is shown and no value: there are keys among them.
        label += "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in item["loc"][1:])
        shown = (
            ""
            if len(item["loc"]) > 1 or _secret(name, values.get(name))
            else f"={values.get(name)!r}"
        )
        lines.append(f"{label}{shown}: {message}")
    return lines


def _secret(name: str, value: Any) -> bool:
    """Whether a value must not be printed: a secret, or a URL with credentials in it."""
    annotation = Settings.model_fields[name].annotation
    return (
        name == "upstreams"
        or SecretStr in {annotation, *get_args(annotation)}
        or (isinstance(value, str) and "://" in value and "@" in value)
    )


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default in (None, ()) else f"`{field.default}`"


def _bounds_text(field: FieldInfo) -> str:
    if (choices := get_args(field.annotation)) and isinstance(choices[0], str):
        return "One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    signs = {"ge": "at least", "gt": "more than", "le": "at most"}
    bounds = [
        f"{words} {getattr(item, sign)}"
        for item in field.metadata
        for sign, words in signs.items()
        if getattr(item, sign, None) is not None
    ]
    return ", ".join(bounds).capitalize() + "." if bounds else ""
