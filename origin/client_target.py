"""Where a command that is a client sends its requests, and with which API key."""

from __future__ import annotations

from urllib.parse import urlsplit

from origin.control_commands import CommandError
from origin.settings import Settings, SettingsError, http_url, load_settings
from shared.keys import DEVELOPMENT_API_KEY, LOOPBACK_HOSTS


def client_target(base_url: str | None, api_key: str | None) -> tuple[str, str]:
    """(address, API key), by options or by the settings: the edge, else the origin.

    On this machine's development mode it is the development key. Raises CommandError, and
    SettingsError where settings are asked.
    """
    settings: Settings | None = None
    if base_url is None:
        settings = load_settings()
        base_url = settings.edge_url or settings.local_origin_url
    try:
        url = http_url(base_url).removesuffix("/v1")
    except ValueError as error:
        raise CommandError(f"--base-url {base_url!r}: {error}") from error
    if api_key is None and urlsplit(url).hostname in LOOPBACK_HOSTS:
        try:
            settings = settings or load_settings()
        except SettingsError:
            settings = None
        if settings is not None and settings.development:
            api_key = DEVELOPMENT_API_KEY
    if not api_key:
        raise CommandError("there is no API key: set ENCORE_API_KEY, or give --api-key")
    if not (api_key.isascii() and api_key.isprintable()):
        raise CommandError("the API key has characters that no key has")
    return url, api_key
