"""What one lookup of GPTCache takes, in an environment of its own; started by `bench.semantic`.

    VENV/bin/python bench/gptcache_lookup.py VECTORS.npz

The file holds `entries` and `queries`, float32 [n, dims] of unit length: embedding is not measured.
The cache is as GPTCache's README has it: `manager_factory("sqlite,faiss")`, evaluation by search
distance; only its default of 1,000 entries is raised. Its files go beside the vectors. Prints one
JSON object: `latencies_ms` of `hit` and `miss`, `cpu_ms` of all, `found` (for each query the place
of the entry it was given, or null), `insert_ms`, `version`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gptcache import Cache
from gptcache.adapter.api import get, put
from gptcache.manager import manager_factory
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation import SearchDistanceEvaluation

INSERTS = 50


def main() -> None:
    """Fill, look up, print."""
    path = Path(sys.argv[1])
    vectors = np.load(path)
    entries, queries = vectors["entries"], vectors["queries"]
    by_name = {f"entry {index}": row for index, row in enumerate(entries)}
    by_name |= {f"query {index}": row for index, row in enumerate(queries)}
    manager = manager_factory(
        "sqlite,faiss",
        data_dir=str(path.parent),
        vector_params={"dimension": entries.shape[1]},
        eviction_params={"max_size": 2 * len(entries)},
    )
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda prompt, **_: by_name[prompt],
        data_manager=manager,
        similarity_evaluation=SearchDistanceEvaluation(),
    )
    names = [f"entry {index}" for index in range(len(entries))]
    bulk = len(entries) - INSERTS
    manager.import_data(names[:bulk], names[:bulk], list(entries[:bulk]), [None] * bulk)
    began_s = time.perf_counter()
    for name in names[bulk:]:
        put(name, name, cache_obj=cache)
    insert_ms = (time.perf_counter() - began_s) * 1000 / INSERTS
    latencies_ms: dict[str, list[float]] = {"hit": [], "miss": []}
    found: list[int | None] = []
    cpu_s = time.process_time()
    for index in range(len(queries)):
        began_s = time.perf_counter()
        answer = get(f"query {index}", cache_obj=cache)
        elapsed_ms = (time.perf_counter() - began_s) * 1000
        latencies_ms["miss" if answer is None else "hit"].append(elapsed_ms)
        found.append(None if answer is None else int(answer.removeprefix("entry ")))
    report = {
        "latencies_ms": latencies_ms,
        "cpu_ms": (time.process_time() - cpu_s) * 1000 / len(queries),
        "found": found,
        "insert_ms": insert_ms,
        "version": version("gptcache"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
