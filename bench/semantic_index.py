"""What the semantic indexes take: search, insert, memory, and what vector sets do not find.

    .venv/bin/python -m bench.semantic_index PAIRS.jsonl[.gz]… [--local 1000,10000,100000]
        [--vector-sets 100000,1000000] [--quantisation Q8,NOQUANT] [--ef 50,100,200,400,800]
        [--filtered] [--vectors FILE.npy]

Rows of PAIRS are `{"a", "b"}`: questions. Of 1,000 rows `b` is only ever asked for, so that what is
found is another wording, not a copy; all other texts are entries. They are encoded by the packaged
all-MiniLM-L6-v2 (`--vectors` keeps the result). Where more entries are wanted than there are texts,
the rest are made of two of them at random: w * first + (1 - w) * second, of unit length, w from 0.5
to 0.9. So they lie where questions lie, around every question there are many, and no search ends at
the first cluster.

All are in one partition. `recall` is how often the nearest that was found is the nearest there is,
by brute force over float32 (and how often one within 1e-3 of it). `insert` is one `add` after
another in the full index; `filling` the same, 200 in a pipeline, two pipelines at a time. Memory is
what Redis' `used_memory` grew by, per entry, texts and keys included; `vector set alone` is what
`MEMORY USAGE` says of it. Redis is started for this and shares the cores with the client: on a busy
machine what Redis used of processors says more than the times.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from origin.semantic.index import Entry, SemanticIndex, Vector
from origin.semantic.local_index import LocalIndex
from origin.semantic.vector_set_index import LINKS, VectorSetIndex
from tests.support.redis_servers import REDIS_8, Node

Vectors = NDArray[np.float32]
QUERIES = 1000
COUNT = 5
FILL_BATCH = 200
FILL_CONNECTIONS = 2
TIE = 1e-3
NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
PARTITION = hashlib.sha256(b"partition").hexdigest()


def read_texts(files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """(entries, queries), without a text in both."""
    rows: list[dict[str, Any]] = []
    for file in files:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        rows += map(json.loads, content.decode().splitlines())
    np.random.default_rng(1).shuffle(cast("Any", rows))
    queries = list(dict.fromkeys(row["b"] for row in rows[:QUERIES]))
    asked = set(queries)
    texts = dict.fromkeys(text for row in rows for text in (row["a"], row["b"]))
    return [text for text in texts if text not in asked], queries


def encoded(texts: Sequence[str], cache: Path | None) -> Vectors:
    """Their vectors, shape [len(texts), 384]."""
    if cache is not None and cache.exists():
        vectors: Vectors = np.load(cache)
        assert len(vectors) == len(texts), f"{cache} is of other texts"
        return vectors
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds

    from origin.semantic.default_model import default_folder  # noqa: PLC0415

    model = SentenceTransformer(str(default_folder()), device="cpu")
    vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=True)
    if cache is not None:
        np.save(cache, vectors)
    return vectors


def grown(real: Vectors, size: int) -> Vectors:
    """The first `size` of them, or all and as many mixtures as are wanting."""
    random = np.random.default_rng(2)
    vectors = np.empty((size, real.shape[1]), dtype=np.float32)
    vectors[: len(real)] = real[:size]
    for start in range(len(real), size, 10_000):
        wanted = min(10_000, size - start)
        first, second = random.integers(len(real), size=(2, wanted))
        share = random.uniform(0.5, 0.9, (wanted, 1)).astype(np.float32)
        mixed = share * real[first] + (1 - share) * real[second]
        vectors[start : start + wanted] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return vectors


def entry_of(number: int, vector: Vector, text: str) -> Entry:
    """As the tier makes them, with digests of their real length."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(
        tenant="acme",
        partition=PARTITION,
        key=digest,
        text=text,
        form=digest[::-1],
        vector=vector,
        expires_ms=NOW_MS + DAY_MS,
    )


async def timed(work: Sequence[Callable[[], Awaitable[Any]]]) -> tuple[list[Any], str]:
    """(results, median and 95th percentile in ms) of one after another."""
    results, taken_ms = [], []
    for one in work:
        began = time.perf_counter()
        results.append(await one())
        taken_ms.append((time.perf_counter() - began) * 1000)
    p95 = statistics.quantiles(taken_ms, n=20)[-1]
    return results, f"{statistics.median(taken_ms):7.3f} {p95:7.3f}"


async def searches(index: SemanticIndex, queries: Vectors) -> tuple[list[Any], str]:
    """What is found, and how fast."""

    def search(query: Vector) -> Callable[[], Awaitable[Any]]:
        return lambda: index.search("acme", PARTITION, query, count=COUNT, now_ms=NOW_MS)

    return await timed([search(query) for query in queries])


async def inserts(index: SemanticIndex, vectors: Vectors, texts: Sequence[str], first: int) -> str:
    """How fast more entries come in, one after another."""

    def insert(number: int) -> Callable[[], Awaitable[Any]]:
        entry = entry_of(first + number, vectors[number], texts[number % len(texts)])
        return lambda: index.add(entry, now_ms=NOW_MS)

    return (await timed([insert(number) for number in range(len(vectors))]))[1]


async def local(
    sizes: Sequence[int], real: Vectors, texts: Sequence[str], queries: Vectors
) -> None:
    """The index in memory."""
    print("local index, one partition        search p50/p95 ms   insert p50/p95 ms")
    for size in sizes:
        index = LocalIndex(identity="bench", dims=real.shape[1], max_entries=size + QUERIES)
        for number, vector in enumerate(grown(real, size)):
            await index.add(entry_of(number, vector, texts[number % len(texts)]), now_ms=NOW_MS)
        _, search = await searches(index, queries)
        insert = await inserts(index, queries, texts, size)
        print(f"  {size:>9,} entries           {search}       {insert}", flush=True)


@contextmanager
def redis_8() -> Iterator[str]:
    """The URL of one, which keeps nothing."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(REDIS_8, Path(folder))
        try:
            node.until_ready()
            yield node.url
        finally:
            node.kill()


def nearest(vectors: Vectors, queries: Vectors) -> Vectors:
    """For each query the cosine of the nearest there is."""
    best = np.full(len(queries), -2, dtype=np.float32)
    for start in range(0, len(vectors), 50_000):
        cosines = queries @ vectors[start : start + 50_000].T
        np.maximum(best, cosines.max(axis=1), out=best)
    return best


async def vector_sets(
    sizes: Sequence[int],
    quantisation: Any,
    *,
    efs: Sequence[int],
    links: int,
    real: Vectors,
    texts: Sequence[str],
    queries: Vectors,
) -> None:
    """The index in Redis 8, at each size on its way to the last."""
    vectors = grown(real, max(sizes))
    by_key = {entry_of(n, vectors[n], "").key: n for n in range(len(vectors))}
    with redis_8() as url:
        client: Any = Redis.from_url(url, socket_timeout=60)

        def index_of(ef: int) -> VectorSetIndex:
            return VectorSetIndex(
                client,
                identity="bench",
                dims=vectors.shape[1],
                quantisation=quantisation,
                ef=ef,
                links=links,
            )

        async def fill(batches: Iterator[Sequence[int]]) -> None:
            for batch in batches:
                pipeline: Any = client.pipeline(transaction=False)
                for number in batch:
                    entry = entry_of(number, vectors[number], texts[number % len(texts)])
                    index._queue_add(pipeline, entry, NOW_MS)  # noqa: SLF001 - what `add` sends
                await pipeline.execute()

        index = index_of(efs[0])
        empty = (await client.info("memory"))["used_memory"]
        filled = 0
        for size in sizes:
            began, used_ms = time.perf_counter(), await cpu_ms(client)
            numbers = range(filled, size)
            batches = (numbers[at : at + FILL_BATCH] for at in range(0, len(numbers), FILL_BATCH))
            await asyncio.gather(*(fill(batches) for _ in range(FILL_CONNECTIONS)))
            filling_ms = (time.perf_counter() - began) * 1000 / len(numbers)
            used_ms = (await cpu_ms(client) - used_ms) / len(numbers)
            filled = size
            each = ((await client.info("memory"))["used_memory"] - empty) / size
            (name,) = [name async for name in client.scan_iter(match="*:p:*")]
            alone = (await client.memory_usage(name, samples=0) or 0) / size
            print(
                f"vector set, {size:,} entries, {quantisation}, {links} links: {each:,.0f} B an "
                f"entry (vector set alone {alone:,.0f} B); filling {filling_ms:.2f} ms an entry, "
                f"{used_ms:.2f} ms of Redis' CPU"
            )
            print("                    search p50/p95 ms   Redis' CPU ms   recall@1")
            best = nearest(vectors[:size], queries)
            for ef in efs:
                used_ms = await cpu_ms(client)
                found, search = await searches(index_of(ef), queries)
                used_ms = (await cpu_ms(client) - used_ms) / len(queries)
                cosines = np.array(
                    [
                        vectors[by_key[candidates[0].key]] @ query if candidates else -2
                        for candidates, query in zip(found, queries, strict=True)
                    ]
                )
                exact = float((cosines >= best - 1e-6).mean())
                close = float((cosines >= best - TIE).mean())
                print(
                    f"  EF {ef:>5}          {search}     {used_ms:7.3f}         {exact:.3f} "
                    f"({close:.3f} within {TIE})",
                    flush=True,
                )
            used_ms = await cpu_ms(client)
            insert = await inserts(index, queries, texts, len(vectors))
            used_ms = (await cpu_ms(client) - used_ms) / len(queries)
            print(f"  insert            {insert}     {used_ms:7.3f}", flush=True)
            await index.remove(
                "acme",
                [entry_of(len(vectors) + n, queries[n], "").key for n in range(len(queries))],
            )
        await client.aclose()


async def cpu_ms(client: Any) -> float:
    """What Redis has used of processors until now."""
    used = await client.info("cpu")
    return 1000 * (float(used["used_cpu_user"]) + float(used["used_cpu_sys"]))


async def filtered(real: Vectors, texts: Sequence[str], queries: Vectors) -> None:
    """One set a tenant, partitions by a filter, beside a set a partition: 100 partitions."""
    size, partitions = len(real), 100
    home = np.random.default_rng(3).integers(partitions, size=size)
    with redis_8() as url:
        client: Any = Redis.from_url(url, socket_timeout=60)
        pipeline: Any = client.pipeline(transaction=False)
        for number in range(size):
            for name in ("all", f"part{home[number]}"):
                about = json.dumps({"p": int(home[number]), "t": texts[number]})
                pipeline.execute_command(
                    *("VADD", name, "FP32", real[number].tobytes(), number, "Q8", "SETATTR", about)
                )
            if number % 500 == 499 or number == size - 1:
                await pipeline.execute()
        print(f"{size:,} entries, {partitions} partitions       search p50/p95 ms   recall@1")
        for what, options in {
            "a set a partition": (),
            "a filter": ("FILTER", ".p == 7"),
            "a filter, FILTER-EF 5000": ("FILTER", ".p == 7", "FILTER-EF", 5000),
        }.items():
            name = "all" if options else "part7"
            own = np.flatnonzero(home == 7)

            def ask(query: Vector, name: str = name, options: Any = options) -> Any:
                command = ("VSIM", name, "FP32", query.tobytes(), "COUNT", COUNT, *options)
                return lambda: client.execute_command(*command)

            found, search = await timed([ask(query) for query in queries])
            best = (queries @ real[own].T).max(axis=1)
            cosines = np.array(
                [
                    real[int(elements[0])] @ query if elements else -2
                    for elements, query in zip(found, queries, strict=True)
                ]
            )
            recall = float((cosines >= best - TIE).mean())
            print(f"  {what:<30}  {search}       {recall:.3f}", flush=True)
        await client.aclose()


def numbers(text: str) -> list[int]:
    """Of `1000,10000`."""
    return [int(one) for one in text.split(",") if one]


async def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--local", type=numbers, default=[1000, 10_000, 100_000])
    parser.add_argument("--vector-sets", type=numbers, default=[100_000, 1_000_000])
    parser.add_argument("--quantisation", default="Q8,NOQUANT")
    parser.add_argument("--ef", type=numbers, default=[50, 100, 200, 400, 800])
    parser.add_argument("--links", type=int, default=LINKS)
    parser.add_argument("--filtered", action="store_true")
    parser.add_argument("--vectors", type=Path)
    options = parser.parse_args()
    texts, queries = read_texts(options.pairs)
    vectors = encoded([*texts, *queries], options.vectors)
    real, asked = vectors[: len(texts)], vectors[len(texts) :]
    print(f"{len(texts):,} texts, {len(queries):,} queries")
    await local(options.local, real, texts, asked)
    if options.filtered:
        await filtered(real, texts, asked)
    for quantisation in options.quantisation.split(","):
        await vector_sets(
            sorted(options.vector_sets),
            quantisation,
            efs=options.ef,
            links=options.links,
            real=real,
            texts=texts,
            queries=asked,
        )


if __name__ == "__main__":
    asyncio.run(main())
