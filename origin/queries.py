"""What is asked: an authenticated request with its keys, and the questions put to it alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.control_document import ControlDocument, Objection, Strategy, objection
from shared.controls import Controls
from shared.embeddings import Element
from shared.envelope import Header, segment_for
from shared.keys import KeyRing, tag_digest
from shared.requests import Endpoint

MAX_LATEST = 512
MAX_LATEST_BODY_BYTES = 16 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """An authenticated request. `fields` is the parsed body; `key` is None for one too large.

    `document` is its tenant's as it ruled when the request came. `ring` made `key`; `other_key` is
    the same request's by the other secret, while one is being replaced; `strategy` made both.
    `elements` are the inputs of a request for embeddings that is answered input by input, else
    None; `base64` is whether it asks for vectors so encoded.
    """

    endpoint: Endpoint
    document: ControlDocument
    ring: KeyRing
    controls: Controls
    fields: dict[str, Any]
    key: str | None
    other_key: str | None
    strategy: Strategy
    stream: bool
    include_usage: bool
    elements: Sequence[Element] | None = None
    base64: bool = False

    @property
    def tenant(self) -> str:
        """Whose request it is."""
        return self.document.tenant

    @property
    def segment(self) -> str:
        """The segment of an entry that answers this request."""
        return segment_for(stream=self.stream, include_usage=self.include_usage, base64=self.base64)

    @property
    def is_of_one_input(self) -> bool:
        """Whether it is a request for the embedding of one input, kept in both encodings."""
        return self.elements is not None and len(self.elements) == 1

    def objection(self, header: Header) -> Objection | None:
        """Why it must not be answered by an entry under one of its keys."""
        other = self.other_key if header.key == self.key else self.key
        return objection(self.document, header, other, controls=self.controls)

    def may_join(self, to_be: Header | None, revision: int) -> bool:
        """Whether a generation that is known by this may answer it.

        `to_be` is its entry's header, None where there will be none; `revision` is that of the
        control document by which it was started.
        """
        if to_be is not None and to_be.source is not None and self.objection(to_be) is not None:
            return False  # it is another question's answer, which this request may not want
        if self.document.revision <= revision:
            # All of the document's cut-offs were there before the generation started.
            return True
        if to_be is None or self.objection(to_be) is not None:
            return False
        # Not yet known of its entry: its tags, for some who wait are elsewhere, and the model that
        # the answer will name.
        cut_offs = self.document.cut_offs
        times_ms = (*cut_offs.tags.values(), *cut_offs.models.values())
        return max(times_ms, default=-1) < to_be.generation_started_ms

    def digests(self, wishes: Iterable[Controls]) -> list[str]:
        """The digests of the tags that these ask for."""
        tags = dict.fromkeys(tag for wish in wishes for tag in wish.tags)
        return [tag_digest(self.ring, self.tenant, tag) for tag in tags]


class LatestQueries:
    """Requests that were read and keyed lately, by their bytes: most hits are for the same few.

    A query is used again only under the very document that keyed it, and the same controls and
    ring. Nobody may change its `fields`. At most `MAX_LATEST` bodies of `MAX_LATEST_BODY_BYTES`.
    """

    def __init__(self) -> None:
        self._queries: OrderedDict[tuple[Endpoint, bytes], Query] = OrderedDict()

    def find(
        self,
        endpoint: Endpoint,
        document: ControlDocument,
        controls: Controls,
        body: bytes,
        ring: KeyRing,
    ) -> Query | None:
        """What was made of the same request, None where it must be read."""
        query = self._queries.get((endpoint, body))
        if (
            query is None
            or query.document is not document
            or query.ring is not ring
            or query.controls != controls
        ):
            return None
        self._queries.move_to_end((endpoint, body))
        return query

    def keep(self, body: bytes, query: Query) -> None:
        """Remember what was made of a request."""
        if len(body) > MAX_LATEST_BODY_BYTES:
            return
        self._queries[query.endpoint, body] = query
        self._queries.move_to_end((query.endpoint, body))
        if len(self._queries) > MAX_LATEST:
            self._queries.popitem(last=False)
