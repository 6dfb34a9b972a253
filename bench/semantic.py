"""What semantic match costs: a decision from end to end, its parts, and GPTCache's lookup.

    .venv/bin/python -m bench.semantic [--rounds 60] [--pairs FILE.jsonl[.gz] ...]
        [--gptcache VENV/bin/python]

A decision is `Matcher.matches`, as the origin calls it: encode the question, search 10,000 of one
partition, read the likest, veto, verify. Entries and questions are `tools.verifier.generate`'s; of
half of the questions another wording is among the entries. `warm` is when the likest were read
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
import os
import platform
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray

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
from tools.verifier.generate import Generator, rows

WORDS = (
    "what is the number of bedrooms in the house at oak street and does it have a garden with two "
    "bathrooms near the school on main road for sale "
) * 3
TOKENS = (8, 12, 21, 60)
"""Of a text, with the two special ones."""
ENTRIES = 10_000
QUERIES = 400
GENERATED = 30_000
SEED = 1
KEYS = key_rings("a secret of the benchmark, long enough")
_BATCH: Final = 16


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--gptcache", type=Path, help="the Python of an environment that has it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asyncio.run(decisions())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    encoders = {"int8": Encoder.load(precision="int8"), "fp32": Encoder.load(precision="fp32")}
    encoding(encoders, arguments.rounds)
    for path in arguments.pairs:
        straying(encoders, path)
    if arguments.gptcache:
        gptcache(arguments.gptcache)
    else:
        print("GPTCache: not measured, for --gptcache does not say where it is installed.")


def encoding(encoders: dict[str, Encoder], rounds: int) -> None:
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
    print("| encoding, median ms | " + " | ".join(texts) + " |")
    print("| --- |" + " ---: |" * len(texts))
    for way in ways:
        print(f"| {way} | " + " | ".join(f"{np.median(latencies[way, c]):.2f}" for c in texts), "|")
    print()


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


def wordings() -> tuple[list[str], list[str]]:
    """(entries, questions): of every other question another wording is among the entries."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows(Generator(seed=SEED).pairs(GENERATED)):
        groups[str(row["group"])].add(str(row["a"]))
        if row["same"]:
            groups[str(row["group"])].add(str(row["b"]))
    chosen = [sorted(texts) for texts in groups.values() if len(texts) > 1]
    random.Random(SEED).shuffle(chosen)  # noqa: S311 - the same each time
    questions = [texts[0] for texts in chosen[:QUERIES]]
    known = [texts[1] for texts in chosen[: QUERIES // 2]]
    others = [text for texts in chosen[QUERIES:] for text in texts]
    return (known + others)[:ENTRIES], questions


async def decisions() -> None:
    """Milliseconds of a decision, and of what is not encoding."""
    entries, questions = wordings()
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

    added_ms = []
    for text in entries:
        question = question_of(asked(text))
        (encoding,) = encoder.encode([text])
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
        began_s = time.perf_counter()
        await index.add(entry, now_ms=0)
        added_ms.append((time.perf_counter() - began_s) * 1000)
    warm, cold = matcher(1 << 30), matcher(0)
    for text in entries:
        await warm._encoder.encode(text, 60)  # noqa: SLF001 - as if they had been matched lately
    print(f"A decision among {await index.count():,} entries of one partition, ms:\n")
    print("| | p50 | p95 | of it not encoding, p50 | p95 | CPU of the event loop, p50 | served |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    took: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    served: defaultdict[str, int] = defaultdict(int)
    for text in questions:
        for name, one in (("warm", warm), ("cold", cold)):
            query = asked(text)
            encoder.taken_s, began_s, cpu_s = 0.0, time.perf_counter(), time.thread_time()
            served[name] += bool(await one.matches(query))
            cpu_s, elapsed_s = time.thread_time() - cpu_s, time.perf_counter() - began_s
            took[name].append((elapsed_s, elapsed_s - encoder.taken_s, cpu_s))
    for name, parts in took.items():
        each = np.array(parts) * 1000
        whole, rest = np.percentile(each[:, 0], [50, 95]), np.percentile(each[:, 1], [50, 95])
        print(
            f"| {name} | {whole[0]:.2f} | {whole[1]:.2f} | {rest[0]:.2f} | {rest[1]:.2f} "
            f"| {np.median(each[:, 2]):.2f} | {served[name]} of {len(questions)} |"
        )
    print(
        f"\nInsert: p50 {np.median(added_ms):.3f} ms, p95 {np.percentile(added_ms, 95):.3f} ms.\n"
    )
    await warm.close()


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


def straying(encoders: dict[str, Encoder], path: Path) -> None:
    """How far int8 is from float32 over the pairs of a file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    found = {name: cosines_of(encoder, rows) for name, encoder in encoders.items()}
    fit = ~np.isnan(found["int8"])
    cosines = {name: every[fit] for name, every in found.items()}
    same = np.array([bool(row["same"]) for row in rows])[fit]
    stray = np.abs(cosines["int8"] - cosines["fp32"])
    print(
        f"{path.name}, {len(same)} pairs: |cosine of int8 - of float32| mean {stray.mean():.4f}, "
        f"p99 {np.quantile(stray, 0.99):.4f}, max {stray.max():.4f}; AUC int8 "
        f"{area(cosines['int8'], same):.4f}, float32 {area(cosines['fp32'], same):.4f}\n"
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


def gptcache(program: Path) -> None:
    """A lookup in GPTCache, over vectors made beforehand: half of the queries are near an entry."""
    random = np.random.default_rng(7)
    entries = unit(random.standard_normal((ENTRIES, 384)))
    far = unit(random.standard_normal((QUERIES // 2, 384)))
    near = unit(entries[: QUERIES // 2] + 0.01 * random.standard_normal((QUERIES // 2, 384)))
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as folder:
        vectors = Path(folder) / "vectors.npz"
        np.savez(vectors, entries=entries, queries=np.concatenate([near, far]))
        script = Path(__file__).with_name("gptcache_lookup.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        output = subprocess.run(
            [str(program), str(script), str(vectors)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    report = json.loads(output.splitlines()[-1])
    print(f"GPTCache {report['version']}, sqlite and faiss, {ENTRIES:,} entries, no embedding:")
    for kind, latencies_ms in report["latencies_ms"].items():
        p50, p95 = np.percentile(latencies_ms, [50, 95])
        print(f"- {kind}: p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(latencies_ms)} lookups)")
    print(f"- insert: {report['insert_ms']:.1f} ms")


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
