"""Paths that are passed on, and paths that are not."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.paths import MAX_DECODINGS, is_plain


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses",
        "/v1/responses/resp_1/input_items",
        "/v1/models/org%2Fname",
        "/v1/models/org:name@1,2;v=3",
        "/v1/files/..hidden",
        "/v1/a%20b",
        "/v1/100%",
    ],
)
def test_ordinary_paths_are_plain(path: str) -> None:
    """Escapes and punctuation are not suspicious by themselves."""
    assert is_plain(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1/responses",
        "/",
        "/v1/",
        "/v1//responses",
        "/v1/..",
        "/v1/../internal",
        "/v1/./responses",
        "/v1/%2e%2e/internal",
        "/v1/..%2finternal",
        "/v1/..%5cinternal",
        "/v1/%252e%252e/internal",
        "/v1/..;/internal",
        "/v1/..;x=1/internal",
        "/v1/a%00b",
        "/v1/a%0d%0ab",
        "/v1/a b",
        "/v1/a?b",
        "/v1/a#b",
        "/v1/a\\b",
        "/v1/é",
    ],
)
def test_paths_that_could_mean_another_are_not(path: str) -> None:
    """Whatever server reads them."""
    assert not is_plain(path)


@given(climb=st.sampled_from(["..", ".", "../..", "a/../b"]), times=st.integers(0, 12))
def test_no_number_of_encodings_hides_a_climb(climb: str, times: int) -> None:
    """Not even more of them than are looked through."""
    for _ in range(times):
        climb = climb.replace("%", "%25").replace(".", "%2e").replace("/", "%2f")
    assert not is_plain(f"/v1/{climb}")
    assert MAX_DECODINGS > 0


@given(st.text(min_size=1).filter(lambda text: "%" not in text))
def test_a_plain_path_decodes_to_whole_segments(text: str) -> None:
    """What is plain keeps its meaning for a server that decodes it once and tidies it."""
    path = "/v1/" + quote(text, safe="/")
    if is_plain(path):
        assert not {"", ".", ".."} & set(unquote(path)[1:].split("/"))
