"""What semantic match costs: a decision from end to end, its parts, and GPTCache's lookup.

    .venv/bin/python -m bench.semantic [--rounds 60] [--pairs FILE.jsonl[.gz] ...]
        [--gptcache VENV/bin/python]

A decision is `Matcher.matches`, as the origin calls it: encode the question, search 10,000 of one
partition, read the likest, veto, verify. Entries and questions are `tools.verifier.generate`'s; of
half of the questions another wording is among the entries. GPTCache and plain cosine are given the
same entries, questions and vectors. `warm` is when the likest were read
lately, so that their encodings are remembered; `cold` when nothing is. What the event loop's thread
used of processors is most of what is not encoding, and says more than times on a busy machine.

Every number is of one thread; what is compared takes turns in the same run. `--pairs` (rows
`{"a", "b", "same"}`) tells how far int8's cosines stray from float32's, and whether they still rank
pairs as well.

GPTCache pins versions of its own, so it stays out of this project's environment:

    python -m venv /tmp/gptcache && /tmp/gptcache/bin/pip install gptcache==0.1.44 faiss-cpu sqlalchemy
"""  # noqa: E501 - a command to copy

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray

from bench.results import Comparison, Result, Table, add_json_option, deliver
from bench.semantic_quality import (
    COSINES,
    Wordings,
    asked_of_gptcache,
    by_cosine,
    held_out,
    wordings,
)
from origin.engine.contract import Engine
from origin.pipeline import Pipeline
from origin.queries import Query
from origin.semantic.batcher import Batcher
from origin.semantic.calibration import Calibration
from origin.semantic.default_model import default_folder
from origin.semantic.encoder import Encoder, Encoding
from origin.semantic.index import Entry
from origin.semantic.local_index import LocalIndex
from origin.semantic.matcher import Matcher
from origin.semantic.questions import question_of
from origin.semantic.verifier import Verifier
from origin.stores.memory import MemoryStore
from shared.control_document import ControlDocument
from shared.controls import Controls
from shared.freshness import Lifetimes
from shared.keys import key_rings
from shared.requests import Endpoint

WORDS = (
    "what is the number of bedrooms in the house at oak street and does it have a garden with two "
    "bathrooms near the school on main road for sale "
) * 3
TOKENS = (8, 12, 21, 60)
"""Of a text, with the two special ones."""
KEYS = key_rings("a secret of the benchmark, long enough")
_BATCH: Final = 16


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--held-out", type=int, help="so many pairs of each file; all, if left out")
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--gptcache", type=Path, help="the Python of an environment that has it")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    decided = asyncio.run(
        decisions(wordings(arguments.entries, arguments.queries), arguments.gptcache)
    )
    encoders = {"int8": Encoder.load(precision="int8"), "fp32": Encoder.load(precision="fp32")}
    right = held_out(encoders["int8"], arguments.held_out)
    result = Result(
        comparisons=decided.comparisons + right.comparisons,
        tables=[*decided.tables, *right.tables, encoding(encoders, arguments.rounds)],
        remarks=decided.remarks + [straying(encoders, path) for path in arguments.pairs],
    )
    deliver(result, arguments.json)


def encoding(encoders: dict[str, Encoder], rounds: int) -> Table:
    """Milliseconds of one text, by its length; and of each of many that wait."""
    oracle = sentence_transformers.SentenceTransformer(str(default_folder()), device="cpu")

    def by_torch(texts: list[str]) -> object:
        return oracle.encode(texts, batch_size=_BATCH, show_progress_bar=False)

    ways: dict[str, Callable[[list[str]], object]] = {
        "ONNX Runtime, int8": encoders["int8"].encode,
        "ONNX Runtime, float32": encoders["fp32"].encode,
        "sentence-transformers (torch)": by_torch,
    }
    texts = {f"{n} tokens": [" ".join(WORDS.split()[: n - 2])] for n in TOKENS}
    texts[f"each of {_BATCH}"] = [
        " ".join(WORDS.split()[start : start + 6 + start % 9]) for start in range(_BATCH)
    ]
    latencies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for case, given in texts.items():
            for way, encode in ways.items():
                began_s = time.perf_counter()
                encode(given)
                elapsed_ms = (time.perf_counter() - began_s) * 1000
                latencies[way, case].append(elapsed_ms / len(given))
    rows = [[way, *(f"{np.median(latencies[way, case]):.2f}" for case in texts)] for way in ways]
    return Table(title="Encoding", columns=["median ms", *texts], rows=rows)


class Timed(Encoder):
    """An encoder that knows how long it took."""

    taken_s = 0.0

    def encode(self, texts: Sequence[str]) -> list[Encoding | None]:
        """As Encoder.encode."""
        began_s = time.perf_counter()
        try:
            return super().encode(texts)
        finally:
            self.taken_s += time.perf_counter() - began_s


async def decisions(given: Wordings, program: Path | None) -> Result:
    """What a decision takes and what of it is not encoding; what is served, beside others."""
    encoder = Timed.load()
    index = LocalIndex(identity=encoder.identity, dims=encoder.dims)
    calibration = Calibration.load()
    document = ControlDocument(tenant="bench", revision=1, calibration=calibration.version)
    pipeline = pipeline_for_keys()

    def asked(text: str) -> Query:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return pipeline.query(
            Endpoint.CHAT, document, Controls(), json.dumps(body).encode(), ring=KEYS.current
        )

    def matcher(memory_bytes: int) -> Matcher:
        return Matcher(
            encoder=Batcher(encoder, memory_bytes=memory_bytes),
            index=index,
            verifier=Verifier.load(),
            calibration=calibration,
            deadline_s=60,
        )

    warm, cold = matcher(1 << 30), matcher(0)
    added_ms, text_of, vectors = [], {}, np.zeros((len(given.entries), encoder.dims), np.float32)
    for place, text in enumerate(given.entries):
        question = question_of(asked(text))
        # Remembered by `warm`, as if it had been matched lately.
        encoding = await warm._encoder.encode(text, 60)  # noqa: SLF001
        if encoding is not None:
            vectors[place] = encoding.vector
        if question is None or encoding is None:
            continue
        entry = Entry(
            tenant="bench",
            partition=question.partition,
            key=asked(text).key or "",
            text=text,
            form=question.form,
            vector=encoding.vector,
            expires_ms=2**52,
        )
        text_of[entry.key] = text
        began_s = time.perf_counter()
        await index.add(entry, now_ms=0)
        added_ms.append((time.perf_counter() - began_s) * 1000)
    took: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    answers: defaultdict[str, list[str | None]] = defaultdict(list)
    for text in given.questions:
        for name, one in (("warm", warm), ("cold", cold)):
            query = asked(text)
            encoder.taken_s, began_s, cpu_s = 0.0, time.perf_counter(), time.thread_time()
            found = await one.matches(query)
            cpu_s, elapsed_s = time.thread_time() - cpu_s, time.perf_counter() - began_s
            took[name].append((elapsed_s, elapsed_s - encoder.taken_s, cpu_s))
            answers[name].append(text_of[found[0].key] if found else None)
    entries = await index.count()
    await warm.close()
    parts = {name: np.array(each) * 1000 for name, each in took.items()}
    encoded = encoder.encode(given.questions)
    questions = np.array([each.vector if each else np.zeros(encoder.dims) for each in encoded])
    served = [given.cells("Encore, mode strict", answers["warm"])]
    served += [
        given.cells(f"plain cosine {each:.2f}", by_cosine(given, vectors, questions, each))
        for each in COSINES
    ]
    comparisons, remarks = [], []
    if program is None:
        remarks.append("GPTCache: not measured, for --gptcache does not say where it is.")
    else:
        report = asked_of_gptcache(program, vectors, questions.astype(np.float32))
        found_there = [None if at is None else given.entries[at] for at in report["found"]]
        served.append(given.cells(f"GPTCache {report['version']}", found_there))
        comparisons = beside_gptcache(parts["warm"], report)
        comparisons.append(
            Comparison(
                what=f"semantic match, {len(given.questions)} questions",
                unit="wrong answers",
                encore=given.served(answers["warm"])[1],
                beside="GPTCache",
                other=given.served(found_there)[1],
            )
        )
        remarks.append(gptcache_line(report, len(given.entries)))
    remarks.append(
        f"insert into the local index: p50 {np.median(added_ms):.3f} ms, "
        f"p95 {np.percentile(added_ms, 95):.3f} ms"
    )
    return Result(
        comparisons=comparisons,
        tables=[
            decision_table(parts, entries),
            Table(
                title=f"What was served to {len(given.questions)} questions, of half of which "
                "another wording is an entry (made by the generator that taught the verifier)",
                columns=["", "right", "wrong"],
                rows=served,
            ),
        ],
        remarks=remarks,
    )


def decision_table(parts: dict[str, NDArray[np.float64]], entries: int) -> Table:
    """`parts`: ms of the whole, of what is not encoding, and of the event loop's CPU, by row."""
    rows = []
    for name, each in parts.items():
        whole, rest = (np.percentile(each[:, place], [50, 95]) for place in (0, 1))
        cells = [*whole, *rest, np.median(each[:, 2])]
        rows.append([name, *(f"{cell:.2f}" for cell in cells)])
    columns = ["ms", "p50", "p95", "of it not encoding, p50", "p95", "CPU of the event loop, p50"]
    title = f"A semantic decision among {entries:,} entries of one partition"
    return Table(title=title, columns=columns, rows=rows)


def beside_gptcache(warm: NDArray[np.float64], report: dict[str, Any]) -> list[Comparison]:
    """What is not encoding, for of GPTCache nothing else is measured."""
    lookups_ms = [each for kind in report["latencies_ms"].values() for each in kind]
    return [
        Comparison(
            what="semantic decision without encoding",
            unit=unit,
            encore=float(np.median(warm[:, place])),
            beside="GPTCache's lookup",
            other=theirs,
        )
        for unit, place, theirs in (
            ("CPU ms", 2, float(report["cpu_ms"])),
            ("p50 ms", 1, float(np.median(lookups_ms))),
        )
    ]


def gptcache_line(report: dict[str, Any], entries: int) -> str:
    """The absolute times."""
    kinds = [
        f"{kind} p50 {np.percentile(ms, 50):.1f} ms, p95 {np.percentile(ms, 95):.1f} ms ({len(ms)})"
        for kind, ms in report["latencies_ms"].items()
        if ms
    ]
    return (
        f"GPTCache {report['version']}, sqlite and faiss, {entries:,} entries, no embedding: "
        f"{', '.join(kinds)}, insert {report['insert_ms']:.1f} ms"
    )


def pipeline_for_keys() -> Pipeline:
    """One that reads and keys requests; nothing else of it is used."""

    async def clock() -> int:
        return 0

    return Pipeline(
        keys=KEYS,
        store=MemoryStore(),
        engine=cast("Engine", None),
        lifetimes=Lifetimes(ttl_s=60, stale_while_revalidate_s=0, stale_if_error_s=0, max_ttl_s=60),
        deadline_s=60,
        store_clock=clock,
    )


def straying(encoders: dict[str, Encoder], path: Path) -> str:
    """How far int8 is from float32 over the pairs of a file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    found = {name: cosines_of(encoder, rows) for name, encoder in encoders.items()}
    fit = ~np.isnan(found["int8"])
    cosines = {name: every[fit] for name, every in found.items()}
    same = np.array([bool(row["same"]) for row in rows])[fit]
    stray = np.abs(cosines["int8"] - cosines["fp32"])
    return (
        f"{path.name}, {len(same)} pairs: |cosine of int8 - of float32| mean {stray.mean():.4f}, "
        f"p99 {np.quantile(stray, 0.99):.4f}, max {stray.max():.4f}; AUC int8 "
        f"{area(cosines['int8'], same):.4f}, float32 {area(cosines['fp32'], same):.4f}"
    )


def cosines_of(encoder: Encoder, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """The cosine of each pair, NaN where a text is past the window."""
    cosines = []
    for row in rows:
        a, b = encoder.encode([row["a"], row["b"]])
        cosines.append(float(a.vector @ b.vector) if a and b else np.nan)
    return np.array(cosines)


def area(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a true pair scores above a false one."""
    false = np.sort(scores[~same])
    below = np.searchsorted(false, scores[same], "left")
    equal = np.searchsorted(false, scores[same], "right") - below
    return float((below + equal / 2).mean() / len(false))


if __name__ == "__main__":
    main()
