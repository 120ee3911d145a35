"""Adaptive K beside every fixed one, over batches."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from statistics import median, mode

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.measuring import in_batches
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import throughput
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.up_config import SPLIT

NAME = "adaptive-k"
FIXED = (0, 1, 2, 4, 6)
ADAPTIVE = "adaptive"
BATCHES = {1: 4, 4: 2, 16: 1}  # streams at a time -> how often in one turn
MAX_TOKENS = 64
NUM_TURNS = 9
GOAL = 0.97


async def measure_adaptive_k(config: BenchConfig, journal: Journal) -> Section:
    """Tokens a second after the first one, of every setting in turn, and again.

    Raises:
        TandemError: something could not be measured.
    """
    config = replace(config, num_speculative_tokens=max(FIXED))
    prompts = spread(await encode(read_texts(config.prompts), config.target), max(BATCHES))
    async with AsyncExitStack() as stack:
        verifiers = []
        for adaptive_k in (False, True):
            opened = open_verifier(config, SPLIT, journal, adaptive_k=adaptive_k)
            verifiers.append(await stack.enter_async_context(opened))
        settings = {_fixed(k): (verifiers[0], k) for k in FIXED} | {ADAPTIVE: (verifiers[1], max(FIXED))}
        for verifier, k in settings.values():
            await _run(verifier, k, prompts[:1], 1)
        samples: dict[str, list[float]] = {}
        for turn in range(1, NUM_TURNS + 1):
            for batch, times in BATCHES.items():
                order = list(settings.items()) if turn % 2 else list(reversed(settings.items()))
                for name, (verifier, k) in order:
                    streams = await _run(verifier, k, spread(prompts, batch * times), batch)
                    rate = throughput(streams).decode_tokens_per_second
                    samples.setdefault(_sample(batch, name), []).append(rate)
                    journal.on_event(f"turn {turn} of {NUM_TURNS}, batch {batch}, {name}: {rate:.1f} tokens/s")
    return _section(samples)


async def _run(verifier: VerifierClient, k: int, prompts: Sequence[Prompt], batch: int) -> list[list[Stream]]:
    return await in_batches(lambda one: verifier.generate(one.token_ids, Ask(MAX_TOKENS, k)), prompts, batch)


def _section(samples: dict[str, list[float]]) -> Section:
    names = [*(_fixed(k) for k in FIXED), ADAPTIVE]
    lines = [
        f"Adaptive K: tokens/s after the first one, {MAX_TOKENS} tokens a text, greedy, medians of {NUM_TURNS} turns",
        f"{'':<12}{''.join(f'{name:>12}' for name in names)}",
    ]
    goals = []
    for batch in BATCHES:
        rates = {name: samples[_sample(batch, name)] for name in names}
        lines.append(f"{f'batch {batch}':<12}{''.join(f'{median(rates[name]):>12.1f}' for name in names)}")
        best, ratios = against_best(rates[ADAPTIVE], {name: rates[name] for name in names[:-1]})
        goals.append(Goal(f"adaptive K / {best}, best at batch {batch}", median(ratios), "x", GOAL))
    return Section(NAME, tuple(lines), tuple(goals), samples)


def against_best(adaptive: Sequence[float], fixed: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The fixed setting that is best in most turns, and what adaptive K reaches of the best one, turn by turn.

    The best of a turn is the one with the highest median of all *other* turns. Chosen by the turn itself, it would
    be the luckiest of several noisy figures, and nothing that is as fast could reach it.
    """
    ratios, chosen = [], []
    for turn, ours in enumerate(adaptive):
        best = max(fixed, key=lambda name: median(fixed[name][:turn] + fixed[name][turn + 1 :]))
        chosen.append(best)
        # Turn by turn: what else the machine did then slowed both.
        ratios.append(ours / fixed[best][turn])
    return mode(chosen), ratios


def _fixed(k: int) -> str:
    return f"K = {k}"


def _sample(batch: int, name: str) -> str:
    return f"batch {batch}, {name}, tokens per second"
