"""Settings: what is read, what wins, and what each refusal says."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr, ValidationError

from origin.prices import Price
from origin.settings import Settings, SettingsError, load_settings, variable
from shared.keys import key_rings

SECRET = "0123456789abcdef0123456789abcdef"


def load(tmp_path: Path, toml: str | None = None, **environ: str) -> Settings:
    """Settings from these variables and this file alone."""
    if toml is not None:
        (tmp_path / "encore.toml").write_text(toml)
    return load_settings(environ, tmp_path)


def refusal(tmp_path: Path, toml: str | None = None, **environ: str) -> str:
    """What the refusal of these variables and this file says."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml, **environ)
    return str(caught.value)


def test_a_secret_is_all_that_production_needs(tmp_path: Path) -> None:
    """Everything else has a default; production is one of them."""
    settings = load(tmp_path, ENCORE_SECRET=SECRET)
    assert settings.mode == "production"
    assert not settings.development
    assert settings.secret.get_secret_value() == SECRET
    assert (settings.origin_host, settings.origin_port) == ("127.0.0.1", 8000)


def test_without_a_secret_production_refuses_to_start(tmp_path: Path) -> None:
    """The refusal names the variable and how to make one."""
    assert refusal(tmp_path).startswith("ENCORE_SECRET is not set")
    assert "openssl rand -hex 32" in refusal(tmp_path, ENCORE_SECRET="")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Both are read; an empty variable counts as unset."""
    toml = 'origin_port = 9000\nedge_port = 9001\nmodel = "from-file"\n'
    settings = load(
        tmp_path, toml, ENCORE_SECRET=SECRET, ENCORE_ORIGIN_PORT="7000", ENCORE_MODEL=""
    )
    assert (settings.origin_port, settings.edge_port, settings.model) == (7000, 9001, "from-file")


CHOICES = {
    name: choice
    for name, field in Settings.model_fields.items()
    for choice in get_args(field.annotation)
    if isinstance(choice, str)
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_in_any_case(tmp_path: Path, name: str) -> None:
    """People write `INFO`, and `On`."""
    environ = {"ENCORE_SECRET": SECRET, variable(name): f" {CHOICES[name].upper()} "}
    assert getattr(load(tmp_path, **environ), name) == CHOICES[name]


def test_overrides_win_over_everything(tmp_path: Path) -> None:
    """A command may decide a setting itself."""
    environ = {"ENCORE_MODE": "production", "ENCORE_SECRET": SECRET}
    assert load_settings(environ, tmp_path, mode="development").development


@pytest.mark.parametrize("url", ["redis+cluster://host:1", "rediss+cluster://u:p@host:1"])
def test_a_cluster_is_a_redis(url: str) -> None:
    """Of L1, and of control documents."""
    settings = Settings(secret=SECRET, redis_url=url, control_redis_url=url)
    assert settings.redis_url == settings.control_redis_url == SecretStr(url)


def test_redis_url_has_no_prefix(tmp_path: Path) -> None:
    """REDIS_URL is the name that hosting platforms set."""
    settings = load(tmp_path, ENCORE_SECRET=SECRET, REDIS_URL="redis://:pw@host:1/2")
    assert settings.redis_url == SecretStr("redis://:pw@host:1/2")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ENCORE_SECRETS", "ENCORE_SECRET"),
        ("ENCORE_ORIGINPORT", "ENCORE_ORIGIN_PORT"),
        ("ENCORE_REDIS_URL", "REDIS_URL"),
        ("ENCORE_TTL", "ENCORE_TTL_S"),
    ],
)
def test_an_unknown_variable_is_refused(tmp_path: Path, name: str, nearest: str) -> None:
    """A misspelt setting would otherwise be ignored in silence."""
    said = refusal(tmp_path, ENCORE_SECRET=SECRET, **{name: "value-of-it"})
    assert said == f"{name}: unknown variable; did you mean {nearest}?"


def test_the_test_suites_variable_is_not_ours(tmp_path: Path) -> None:
    """ENCORE_REQUIRE_ALL and variables of others are left alone."""
    load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_REQUIRE_ALL="1", PATH="/bin", encore_x="y")


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    """The file is as strict as the environment, tables included."""
    said = refusal(tmp_path, 'orign_port = 1\n[table]\nx = "y"\n', ENCORE_SECRET=SECRET)
    assert "encore.toml: unknown key 'orign_port'; did you mean origin_port?" in said
    assert "encore.toml: unknown key 'table'" in said


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    """The refusal says where the TOML is wrong."""
    assert "not valid TOML" in refusal(tmp_path, "origin_port = ", ENCORE_SECRET=SECRET)
    (tmp_path / "encore.toml").write_bytes(b"\xff")
    assert "cannot be read" in refusal(tmp_path, ENCORE_SECRET=SECRET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENCORE_MODE", "prod"),
        ("ENCORE_ORIGIN_PORT", "0"),
        ("ENCORE_ORIGIN_PORT", "80x"),
        ("ENCORE_EDGE_PORT", "65536"),
        ("ENCORE_ORIGIN_URL", "localhost:8000"),
        ("ENCORE_EDGE_URL", "edge.example"),
        ("ENCORE_LOG_LEVEL", "loud"),
        ("ENCORE_KEY_PREFIX", "a{b"),
        ("ENCORE_DTYPE", "int8"),
        ("ENCORE_DEVICE", "tpu"),
        ("ENCORE_CHAT_TEMPLATE", "no-such-file"),
        ("ENCORE_ENGINE_CONCURRENCY", "0"),
        ("ENCORE_ENGINE_QUEUE_LIMIT", "-1"),
        ("ENCORE_UPSTREAM", "ftp://host"),
        ("ENCORE_UPSTREAM", "https://"),
        ("ENCORE_UPSTREAM", "https://host:port"),
        ("ENCORE_UPSTREAM", "https://host/v1?key=1"),
        ("ENCORE_UPSTREAM_TIMEOUT_S", "inf"),
        ("ENCORE_UPSTREAM_TIMEOUT_S", "nan"),
        ("ENCORE_PRICES", "[]"),
        ("ENCORE_TTL_S", "-1"),
        ("ENCORE_TTL_S", "1 day"),
        ("ENCORE_MAX_BODY_BYTES", "0"),
        ("ENCORE_REQUEST_DEADLINE_S", "0"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, name: str, value: str) -> None:
    """The refusal begins with the variable and the value it dislikes."""
    assert refusal(tmp_path, ENCORE_SECRET=SECRET, **{name: value}).startswith(
        f"{name}='{value}': "
    )


def test_a_bad_value_in_the_file_is_named(tmp_path: Path) -> None:
    """So does one from the file, by its key there; a boolean is no port."""
    said = refusal(tmp_path, "origin_port = true", ENCORE_SECRET=SECRET)
    assert said.startswith("encore.toml: origin_port=True: ")


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    """One start shows every mistake."""
    said = refusal(tmp_path, ENCORE_SECRET="short", ENCORE_ORIGIN_PORT="x", ENCORE_DTYPE="y")
    assert len(said.splitlines()) == 3


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (
            {"ENCORE_UPSTREAM": "http://u", "ENCORE_MODEL": "m"},
            ["ENCORE_UPSTREAM='http://u'", "ENCORE_MODEL='m'"],
        ),
        ({"ENCORE_UPSTREAM_API_KEY": "private"}, ["ENCORE_UPSTREAM_API_KEY", "ENCORE_UPSTREAM;"]),
        ({"ENCORE_PREVIOUS_SECRET": SECRET}, ["ENCORE_PREVIOUS_SECRET", "ENCORE_SECRET;"]),
        ({"ENCORE_TTL_S": "11", "ENCORE_MAX_TTL_S": "10"}, ["ENCORE_TTL_S=11", "_MAX_TTL_S=10"]),
        (
            {"ENCORE_MAX_CACHED_BODY_BYTES": "11", "ENCORE_MAX_BODY_BYTES": "10"},
            ["ENCORE_MAX_CACHED_BODY_BYTES=11", "ENCORE_MAX_BODY_BYTES=10"],
        ),
        (
            {"ENCORE_MODE": "development", "ENCORE_ORIGIN_HOST": "0.0.0.0"},  # noqa: S104 - refused
            ["ENCORE_ORIGIN_HOST='0.0.0.0'", "ENCORE_MODE=production"],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    tmp_path: Path, environ: dict[str, str], names: list[str]
) -> None:
    """The refusal names both, and no secret."""
    said = refusal(tmp_path, ENCORE_SECRET=SECRET, **environ)
    assert all(name in said for name in names)
    assert "private" not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "environ",
    [
        {"ENCORE_SECRET": "hunter2"},
        {"ENCORE_SECRET": SECRET + "hunter2\n"},
        {"ENCORE_SECRET": SECRET, "ENCORE_PREVIOUS_SECRET": "hunter2"},
        {"ENCORE_SECRET": SECRET, "REDIS_URL": "http://:hunter2@host"},
        {"ENCORE_SECRET": SECRET, "ENCORE_UPSTREAM": "https://user:hunter2@host"},
        {"ENCORE_SECRET": SECRET, "ENCORE_UPSTREAM_API_KEY": "hunter2"},
    ],
)
def test_secrets_are_never_quoted(tmp_path: Path, environ: dict[str, str]) -> None:
    """A refusal names the variable of a secret, not its value."""
    assert "hunter2" not in refusal(tmp_path, **environ)


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    """Neither is any in what settings look like."""
    settings = load(
        tmp_path,
        ENCORE_SECRET=SECRET,
        REDIS_URL="redis://:hunter2@host",
        ENCORE_UPSTREAM="http://u",
        ENCORE_UPSTREAM_API_KEY="hunter2",
    )
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert SECRET not in shown


def test_keys_are_of_both_secrets(tmp_path: Path) -> None:
    """The previous one's only where it is set."""
    previous = "fedcba9876543210fedcba9876543210"
    alone = load(tmp_path, ENCORE_SECRET=SECRET)
    both = load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_PREVIOUS_SECRET=previous)
    assert alone.keys == key_rings(SECRET)
    assert both.keys == key_rings(SECRET, previous)


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nothing changes them; `replace` makes new ones, validated."""
    settings = load(tmp_path, ENCORE_SECRET=SECRET)
    with pytest.raises(ValidationError):
        settings.origin_port = 1  # type: ignore[misc]  # that is what is refused
    assert settings.replace(origin_port=1).origin_port == 1
    assert settings.replace(origin_port=1).secret == settings.secret
    with pytest.raises(ValidationError):
        settings.replace(origin_port=0)


def test_building_settings_reads_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Settings is what it is given."""
    monkeypatch.setenv("ENCORE_ORIGIN_PORT", "9")
    assert Settings.model_validate({"secret": SECRET}).origin_port == 8000


def test_development_makes_its_secret_once(tmp_path: Path) -> None:
    """It is random, kept, and readable by its owner alone."""
    one = load(tmp_path, ENCORE_MODE="development")
    two = load(tmp_path, ENCORE_MODE="Development ")
    kept = tmp_path / ".encore" / "dev-secret"
    assert one.secret == two.secret
    assert kept.read_text().strip() == one.secret.get_secret_value()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (
        load(tmp_path / "..", ENCORE_MODE="production", ENCORE_SECRET=SECRET).secret != one.secret
    )
    assert [path.name for path in kept.parent.iterdir()] == ["dev-secret"]


def test_a_development_secret_that_is_set_is_used(tmp_path: Path) -> None:
    """Nothing is written then."""
    settings = load(tmp_path, ENCORE_MODE="development", ENCORE_SECRET=SECRET)
    assert settings.secret.get_secret_value() == SECRET
    assert not (tmp_path / ".encore").exists()


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The refusal says which folder, and what else to set."""
    (tmp_path / "file").write_text("")
    said = refusal(tmp_path, ENCORE_MODE="development", ENCORE_STATE_DIR="file")
    assert "ENCORE_STATE_DIR=" in said
    assert "ENCORE_SECRET" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_development_stays_on_loopback(tmp_path: Path, host: str) -> None:
    """Any way of writing it will do."""
    assert load(tmp_path, ENCORE_MODE="development", ENCORE_ORIGIN_HOST=host).origin_host == host


def test_a_chat_template_is_text_or_a_file(tmp_path: Path) -> None:
    """Either way the setting is the text."""
    text = "{{ messages }}\n"
    (tmp_path / "template.jinja").write_text(text)
    for given in ("template.jinja", str(tmp_path / "template.jinja"), text):
        settings = load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_CHAT_TEMPLATE=given)
        assert settings.chat_template == text


@pytest.mark.parametrize("given", ["http://host/", "http://host"])
def test_base_urls_lose_their_last_slash(tmp_path: Path, given: str) -> None:
    """One URL, one spelling."""
    assert load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_UPSTREAM=given).upstream == "http://host"


def test_zero_is_a_duration(tmp_path: Path) -> None:
    """It means never, not "the default" and not "for ever"."""
    names: dict[str, Any] = {
        "ENCORE_TTL_S": "0",
        "ENCORE_STALE_WHILE_REVALIDATE_S": "0",
        "ENCORE_STALE_IF_ERROR_S": "0",
    }
    settings = load(tmp_path, ENCORE_SECRET=SECRET, **names)
    assert settings.ttl_s == settings.stale_while_revalidate_s == settings.stale_if_error_s == 0


def test_prices_are_json(tmp_path: Path) -> None:
    """In the environment; in the file they are a table."""
    price = Price(input=2.5, output=10)
    text = '{"gpt-4o*": {"input": 2.5, "output": 10}}'
    assert load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_PRICES=text).prices.of("gpt-4o") == price
    toml = '[prices."gpt-4o*"]\ninput = 2.5\noutput = 10\n'
    assert load(tmp_path, toml, ENCORE_SECRET=SECRET).prices.of("gpt-4o") == price


def test_variables_are_named_after_settings() -> None:
    """One rule, one exception."""
    assert variable("ttl_s") == "ENCORE_TTL_S"
    assert variable("redis_url") == "REDIS_URL"


TWO_UPSTREAMS = """
[[upstreams]]
base_url = "https://api.example.com/v1/"
models = ["gpt-*"]
api_key = "env:OPENAI_API_KEY"
tenant_api_keys = { acme = "env:ACME_KEY" }

[[upstreams]]
base_url = "http://vllm:8000"
timeout_s = 300
"""
KEYS = {"OPENAI_API_KEY": "sk-one", "ACME_KEY": "sk-two"}


def test_upstreams_are_read_from_the_file(tmp_path: Path) -> None:
    """Keys come out of the environment, where it says so."""
    one, two = load(tmp_path, TWO_UPSTREAMS, ENCORE_SECRET=SECRET, **KEYS).all_upstreams
    assert (one.base_url, one.models, one.timeout_s) == (
        "https://api.example.com/v1",
        ("gpt-*",),
        120.0,
    )
    assert one.api_key == SecretStr("sk-one")
    assert one.tenant_api_keys == {"acme": SecretStr("sk-two")}
    assert (two.base_url, two.models, two.api_key) == ("http://vllm:8000", ("*",), None)
    assert two.timeout_s == 300


def test_upstreams_are_read_from_the_environment(tmp_path: Path) -> None:
    """As a JSON array of the same objects."""
    text = '[{"base_url": "http://vllm:8000", "models": ["m"], "api_key": "env:K"}]'
    settings = load(tmp_path, ENCORE_SECRET=SECRET, ENCORE_UPSTREAMS=text, K="k")
    (one,) = settings.replace(ttl_s=1).all_upstreams
    assert (one.base_url, one.models, one.api_key) == ("http://vllm:8000", ("m",), SecretStr("k"))


def test_single_upstream_is_a_list_of_one(tmp_path: Path) -> None:
    """The simple case has no other rules."""
    variables = {"ENCORE_UPSTREAM": "http://one", "ENCORE_UPSTREAM_API_KEY": "k"}
    (one,) = load(
        tmp_path, ENCORE_SECRET=SECRET, ENCORE_UPSTREAM_TIMEOUT_S="7", **variables
    ).all_upstreams
    assert (one.base_url, one.api_key, one.timeout_s) == ("http://one", SecretStr("k"), 7.0)
    assert one.models == ("*",)
    assert load(tmp_path, ENCORE_SECRET=SECRET).all_upstreams == ()


def test_keys_of_upstreams_are_not_shown(tmp_path: Path) -> None:
    """Not by what `encore settings` prints."""
    settings = load(tmp_path, TWO_UPSTREAMS, ENCORE_SECRET=SECRET, **KEYS)
    shown = "".join(f"{name} = {value}" for name, value in settings)
    assert "api.example.com" in shown
    assert "sk-one" not in shown + repr(settings)
    assert "sk-two" not in shown + repr(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "ENCORE_UPSTREAMS: not a JSON array"),
        ("7", "ENCORE_UPSTREAMS: should be an array"),
        ("[7]", "ENCORE_UPSTREAMS[0]: should be an object"),
        ('[{"base_url": "http://h /"}]', "[0].base_url: a URL has no spaces"),
        (
            '[{"base_url": "http://h", "api_key": "env:ENCORE_SECRET"}]',
            "ENCORE_SECRET is a setting",
        ),
        ("[{}]", "ENCORE_UPSTREAMS[0].base_url: Field required"),
        ('[{"base_url": "ftp://h"}]', "ENCORE_UPSTREAMS[0].base_url: not an http://"),
        ('[{"base_url": "http://u:hidden@h"}]', "[0].base_url: credentials do not belong"),
        ('[{"base_url": "http://h", "models": []}]', "[0].models: "),
        ('[{"base_url": "http://h", "models": [""]}]', "[0].models[0]: "),
        ('[{"base_url": "http://h", "timeout_s": 0}]', "[0].timeout_s: "),
        ('[{"base_url": "http://h", "key": "hidden"}]', "[0].key: there is no such key"),
        ('[{"base_url": "http://h", "api_key": "hidden key"}]', "[0].api_key: a key has"),
        ('[{"base_url": "http://h", "api_key": ""}]', "[0].api_key: a key has"),
        (
            '[{"base_url": "http://h", "tenant_api_keys": {"sk-HIDDEN": "acme"}}]',
            "[0].tenant_api_keys: not a table of tenants' names",
        ),
        (
            '[{"base_url": "http://h", "api_key": "env:NOT_THERE"}]',
            "NOT_THERE is not set, but ENCORE_UPSTREAMS says",
        ),
    ],
)
def test_bad_upstreams_are_refused_by_place(tmp_path: Path, text: str, said: str) -> None:
    """Without quoting what may be a key."""
    refused = refusal(tmp_path, ENCORE_SECRET=SECRET, ENCORE_UPSTREAMS=text)
    assert said in refused
    assert "hidden" not in refused.lower()


@pytest.mark.parametrize(
    "other", [{"ENCORE_UPSTREAM": "http://one"}, {"ENCORE_MODEL": "/some/model"}]
)
def test_upstreams_and_another_engine_exclude_each_other(
    tmp_path: Path, other: dict[str, str]
) -> None:
    """There is one engine."""
    text = '[{"base_url": "http://two"}]'
    refused = refusal(tmp_path, ENCORE_SECRET=SECRET, ENCORE_UPSTREAMS=text, **other)
    assert "exclude each other" in refused
