"""The parts of semantic match, loaded as the settings want them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from origin.semantic.batcher import Batcher
from origin.semantic.calibration import DEFAULT_CALIBRATION, Calibration, CalibrationError
from origin.semantic.decision import Decision
from origin.semantic.encoder import Encoder, EncoderError
from origin.semantic.local_index import LocalIndex
from origin.semantic.matcher import Matcher
from origin.semantic.vector_set_index import VectorSetIndex, has_vector_sets
from origin.semantic.verifier import DEFAULT_MODEL, Verifier, VerifierError
from origin.settings import Settings, SettingsError
from origin.stores.contract import StoreError
from origin.stores.redis_store import redis_client
from shared.control_document import STRICT_BOUND

if TYPE_CHECKING:
    from origin.semantic.index import SemanticIndex

LOOK_TIMEOUT_S = 2.0
log = logging.getLogger(__name__)


class MissingError(Exception):
    """Semantic match cannot be had here; the text says what is missing."""


def load_scorer(settings: Settings) -> tuple[Encoder, Verifier]:
    """What scores. Blocking: up to a second, the first time some twenty more for the export.

    Raises MissingError, and SettingsError where the settings name what cannot be read or does not
    go together.
    """
    try:
        encoder = Encoder.load(settings.semantic_model)
    except EncoderError as exc:
        if settings.semantic_model is not None:
            raise SettingsError(
                f"ENCORE_SEMANTIC_MODEL: {exc}; name a sentence-transformers id, or its folder"
            ) from exc
        raise MissingError(str(exc)) from exc
    try:
        verifier = Verifier.load(settings.semantic_verifier or DEFAULT_MODEL)
    except VerifierError as exc:
        raise SettingsError(f"ENCORE_SEMANTIC_VERIFIER: {exc}") from exc
    if verifier.encoder != encoder.identity:
        raise SettingsError(
            f"ENCORE_SEMANTIC_VERIFIER: it was trained for {verifier.encoder}, and the encoder is "
            f"{encoder.identity}; `python -m tools.verifier.train` trains one for it"
        )
    return encoder, verifier


def load_decider(settings: Settings) -> tuple[Encoder, Verifier, Calibration]:
    """What scores, and the thresholds: what decides. As `load_scorer`."""
    encoder, verifier = load_scorer(settings)
    try:
        calibration = Calibration.load(settings.semantic_calibration or DEFAULT_CALIBRATION)
        Decision.end_to_end(verifier, calibration, STRICT_BOUND)
    except (CalibrationError, ValueError) as exc:
        raise SettingsError(
            f"ENCORE_SEMANTIC_CALIBRATION: {exc}; `encore calibrate` makes one"
        ) from exc
    return encoder, verifier, calibration


def load_matcher(settings: Settings, redis_url: str) -> Matcher:
    """Semantic match over the Redis at `redis_url`. Raises as `load_decider` does."""
    encoder, verifier, calibration = load_decider(settings)
    return Matcher(
        encoder=Batcher(encoder),
        index=_index(settings, redis_url, encoder),
        verifier=verifier,
        calibration=calibration,
        deadline_s=settings.semantic_deadline_ms / 1000,
        tiers=settings.tiers,
    )


def _index(settings: Settings, url: str, encoder: Encoder) -> SemanticIndex:
    wanted = settings.semantic_index
    if wanted == "auto":
        try:
            wanted = "redis" if asyncio.run(_can_search(url)) else "local"
        except StoreError as exc:
            log.warning("semantic index: %s; questions are kept in this process's memory", exc)
            wanted = "local"
    identity, dims, prefix = encoder.identity, encoder.dims, settings.key_prefix
    if wanted == "redis":
        return VectorSetIndex.from_url(url, identity=identity, dims=dims, prefix=prefix)
    return LocalIndex.from_url(
        url,
        identity=identity,
        dims=dims,
        prefix=prefix,
        max_entries=settings.semantic_max_entries,
    )


async def _can_search(url: str) -> bool:
    """Whether the Redis at `url` has vector sets. Raises StoreError."""
    client = redis_client(url, timeout_s=LOOK_TIMEOUT_S, max_connections=1)
    try:
        return await has_vector_sets(client)
    finally:
        await client.aclose()
