"""What a known prefix saves: time to the first token, cold and warm, beside the floor and others.

    .venv/bin/python -m bench.prefix [--prefixes 128,512,...] [--rounds 3]
        [--model FOLDER | --demo] [--llama-cpp VENV/bin/python] [--only float32]
        [--conversations 1000]

The model is a 135 M Llama (SmolLM's shape) of random weights, written once to a temporary folder
(`--model FOLDER` keeps it there), or the demo model. A prompt is a prefix and 16 tokens more. Cold,
nobody has seen it; warm, its prefix was seen before other 16 tokens. The floor is the forward pass
of those 16 alone, by the engine's own model, with the prefix's keys and values in place already: no
cache can beat it.

Encore is asked as the origin does it, `TransformersEngine.run`, up to the first chunk. Plain
transformers is `generate`; warm, it is given a copy of the prefix's cache, as its documentation has
it, for `generate` changes what it is given. llama.cpp keeps its last prompt by itself.

All sides take turns within a round, each of them with the same tokens; numbers are medians, of wall
time and of the process's CPU time. One thread, unless OMP_NUM_THREADS says otherwise: two that
share their cores with other work wait for each other.

`--conversations N` (minutes to hours) is in `bench.prefix_conversations`. llama-cpp-python stays
out of this project's environment:

    python -m venv /tmp/llama && /tmp/llama/bin/pip install llama-cpp-python gguf safetensors
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the engine takes what torch begins with
import torch
import transformers

from bench import prefix_conversations, prefix_model
from bench.prefix_sides import (
    AT_ONCE,
    SUFFIX_TOKENS,
    Encore,
    Floor,
    LlamaCpp,
    Stopwatch,
    Taken,
    Transformers,
)
from bench.results import Comparison, Result, Table, add_json_option, deliver
from origin.engine.demo import DEMO_CHECKPOINT
from origin.engine.prefix_cache import Root

PREFIXES: Final = (128, 512, 1024, 2000, 2048, 4096)
WARM_TURNS: Final = 3
"""How often each side is asked warm, within a round."""
SET_UPS: Final = 500
SHARED_TOKENS: Final = 512


def main() -> None:
    """Run and print."""
    arguments = arguments_of()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    with model_folder(arguments) as folder:
        dtypes = arguments.only or ("float32", "bfloat16")
        if arguments.conversations:
            for dtype in dtypes:
                prefix_conversations.run(folder, dtype, arguments.conversations)
            return
        results = [measure(folder, dtype, arguments) for dtype in dtypes]
    whole = Result(
        comparisons=[each for result in results for each in result.comparisons],
        tables=[table for result in results for table in result.tables],
        remarks=[f"{torch.get_num_threads()} thread(s) a model"],
    )
    for result in results:
        whole.remarks.extend(result.remarks)
    if not arguments.llama_cpp:
        whole.remarks.append("llama.cpp: not measured, for --llama-cpp does not say where it is.")
    deliver(whole, arguments.json)


def arguments_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prefixes", type=numbers, default=PREFIXES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="where the 135 M model is, or is to be written")
    parser.add_argument("--demo", action="store_true", help="the demo model instead")
    parser.add_argument("--only", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--llama-cpp", type=Path, help="the Python of an environment that has it")
    parser.add_argument("--conversations", type=int, default=0)
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.demo and arguments.llama_cpp:
        parser.error("--llama-cpp: only the 135 M model is converted")
    return arguments


def numbers(text: str) -> tuple[int, ...]:
    """From "128,512"."""
    return tuple(int(part) for part in text.split(","))


@contextmanager
def model_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """A folder with the model to measure."""
    if arguments.demo:
        yield DEMO_CHECKPOINT
        return
    with tempfile.TemporaryDirectory(prefix="encore-bench-") as temporary:
        folder = arguments.model or Path(temporary)
        if not (folder / "config.json").exists():
            prefix_model.write(folder)
        yield folder


def measure(folder: Path, dtype: str, arguments: argparse.Namespace) -> Result:
    """One dtype."""
    encore, plain = Encore(folder, dtype), Transformers(folder, dtype)
    floor = Floor(encore.engine._model.module, plain)  # noqa: SLF001 - the same model, as it is set up
    llama = None
    if arguments.llama_cpp:
        llama = LlamaCpp(arguments.llama_cpp, folder, dtype)
    drawn = random.Random(dtype)  # noqa: S311 - the same each time
    limit = plain.model.config.max_position_embeddings - SUFFIX_TOKENS
    prefixes = [tokens for tokens in arguments.prefixes if tokens <= limit]

    def ids(tokens: int) -> list[int]:
        return drawn.choices(range(10, plain.model.config.vocab_size), k=tokens)

    remarks: list[str] = []
    cold: dict[str, Callable[[list[int]], Taken]] = {
        "Encore": encore.ask,
        "transformers": plain.cold,
    }
    warm = {"Encore": encore.ask, "floor": floor.warm, "transformers": plain.warm}
    if llama:
        cold["llama.cpp"] = warm["llama.cpp"] = llama.ask
        remarks.append(agreement(plain, llama, [ids(64) for _ in range(4)]))
    for side in (encore.ask, plain.cold):  # what only the first call does
        side(ids(64))
    found: defaultdict[tuple[int, str], list[Taken]] = defaultdict(list)
    agreed = 0
    for _ in range(arguments.rounds):
        for tokens in prefixes:
            prefix = ids(tokens)
            first = prefix + ids(SUFFIX_TOKENS)
            for name, ask in cold.items():
                found[tokens, f"{name} cold"].append(ask(first))
            floor.prepare()
            for _ in range(WARM_TURNS):
                again = prefix + ids(SUFFIX_TOKENS)
                for name, ask in warm.items():
                    found[tokens, f"{name} warm"].append(ask(again))
                said = {found[tokens, f"{name} warm"][-1].token for name in warm}
                agreed += len(said - {None}) == 1
    asked = arguments.rounds * len(prefixes) * WARM_TURNS
    remarks.append(
        f"warm, all of {', '.join(warm)} said the same first token {agreed} of {asked} times"
    )
    remarks += set_up(encore, ids)
    remarks.append(concurrent(encore, ids, arguments.rounds))
    if llama:
        llama.close()
    encore.close()
    model = f"{'the demo model' if arguments.demo else '135 M'}, {dtype}"
    return compared(model, prefixes, list(cold), found, remarks)


def compared(
    model: str,
    prefixes: Sequence[int],
    sides: Sequence[str],
    found: dict[tuple[int, str], list[Taken]],
    remarks: list[str],
) -> Result:
    """Medians of wall time and of CPU time, and how many times faster warm is than cold.

    A cold prompt that is read in blocks is slower than one read at once: so the last column
    measures warm by plain transformers' cold.
    """

    def median(tokens: int, column: str, unit: str) -> float:
        return float(statistics.median(getattr(one, unit) for one in found[tokens, column]))

    tables = []
    for unit, name in (("cpu_ms", "CPU"), ("wall_ms", "wall")):
        heads = [f"prefix, {name} ms", "floor"]
        heads += [f"{side} {head}" for side in sides for head in ("cold", "warm", "times")]
        heads.append("transformers cold to Encore warm, times")
        rows = []
        for tokens in prefixes:
            cells = [f"{tokens:,}", f"{median(tokens, 'floor warm', unit):.1f}"]
            for side in sides:
                cold, warm = (median(tokens, f"{side} {how}", unit) for how in ("cold", "warm"))
                cells += [f"{cold:,.0f}", f"{warm:.1f}", f"{cold / warm:.1f}"]
            plain = median(tokens, "transformers cold", unit)
            cells.append(f"{plain / median(tokens, 'Encore warm', unit):.1f}")
            rows.append(cells)
        tables.append(Table(title=f"To the first token: {model}", columns=heads, rows=rows))
    comparisons = [
        Comparison(
            what=f"warm first token, {tokens:,} tokens known, {model}",
            unit="CPU ms",
            encore=median(tokens, "Encore warm", "cpu_ms"),
            beside=beside,
            other=median(tokens, beside, "cpu_ms"),
        )
        for tokens in prefixes
        for beside in ("floor warm", *(f"{s} warm" for s in sides[1:]), "transformers cold")
    ]
    return Result(comparisons=comparisons, tables=tables, remarks=remarks)


def agreement(plain: Transformers, llama: LlamaCpp, prompts: Sequence[list[int]]) -> str:
    """Whether llama.cpp, on the converted weights, says what transformers says."""
    agreed = 0
    for prompt in prompts:
        with torch.inference_mode():
            expected = plain.model.generate(
                torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0
            )[0, len(prompt) :].tolist()
        agreed += sum(
            a == b for a, b in zip(llama.answer(prompt, 16)["tokens"], expected, strict=True)
        )
    return f"llama.cpp and transformers agree in {agreed} of {16 * len(prompts)} greedy tokens"


def set_up(encore: Encore, ids: Callable[[int], list[int]]) -> list[str]:
    """What finding a prefix takes, up to a cache that the model can be given, and its release."""
    engine = encore.engine
    prompt = ids(SHARED_TOKENS + 1)
    root = Root(engine=engine._identity, tenant="bench", scope=None)  # noqa: SLF001 - as it asks
    encore.ask(prompt)
    cuts = engine._prefixes.cuts  # noqa: SLF001 - the engine is idle
    said = []
    for tokens in (cuts.next(0), cuts.floor(SHARED_TOKENS)):
        taken_ms = []
        for _ in range(SET_UPS):
            watch = Stopwatch()
            with engine._prefixes.begin(root, prompt[: tokens + 1]) as reading:  # noqa: SLF001
                taken_ms.append(watch.taken().wall_ms)
            assert reading.cached == tokens
        said.append(f"a hit of {tokens} tokens is set up in {statistics.median(taken_ms):.3f} ms")
    return said


def concurrent(encore: Encore, ids: Callable[[int], list[int]], rounds: int) -> str:
    """CPU of some requests at once that share a prefix, and of as many that share nothing."""
    spent: defaultdict[str, list[float]] = defaultdict(list)

    async def ask_all(prompts: Sequence[list[int]]) -> None:
        await asyncio.gather(*(encore.first(prompt) for prompt in prompts))

    for _ in range(rounds):
        shared = ids(SHARED_TOKENS)
        for name, prefixes in (
            ("shared", [shared] * AT_ONCE),
            ("apart", [ids(SHARED_TOKENS) for _ in range(AT_ONCE)]),
        ):
            prompts = [prefix + ids(SUFFIX_TOKENS) for prefix in prefixes]
            watch = Stopwatch()
            encore.loop.run_until_complete(ask_all(prompts))
            spent[name].append(watch.taken().cpu_ms)
    together, apart = (statistics.median(spent[name]) for name in ("shared", "apart"))
    return (
        f"{AT_ONCE} at once of {SHARED_TOKENS} tokens and {SUFFIX_TOKENS}: CPU {apart:,.0f} ms "
        f"cold, {together:,.0f} ms where the {SHARED_TOKENS} are shared, "
        f"{apart / together:.1f} times less"
    )


if __name__ == "__main__":
    main()
