"""Adaptive K beside every fixed one, over batches."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median, mode

from tandem.cli.bench import any_k
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import count_together
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.up_config import SPLIT

NAME = "adaptive-k"
FIXED = (0, 1, 2, 4, any_k.MAX_DRAFTS)
ADAPTIVE = "adaptive"
MAX_TOKENS = 64
NUM_PROMPTS = 40
NUM_GROUPS = {1: 12, 4: 10, 16: 5}  # streams at a time -> groups of as many prompts
NUM_PASSES = 5  # over the groups of a batch; about as much time for every batch
HOPELESS = 0.92  # of the best one's rate in the first pass: such a K is not tried further
CACHE_SALT = "adaptive K"  # every prompt is computed once, however often it is asked for
GOAL = 0.97


async def measure_adaptive_k(config: BenchConfig, journal: Journal) -> Section:
    """Tokens a second while a batch is complete, of every setting, over the same texts in each pass.

    All settings are served by one verifier, so that nothing but K differs, and take turns text by text. What adaptive
    K knows is what it found out in its own turns. Texts differ in how well they are drafted, and the more drafts there
    are the more so: only over many of them do two settings compare.

    Raises:
        TandemError: something could not be measured.
    """
    config = replace(config, num_speculative_tokens=any_k.ADAPTIVE)
    prompts = spread(await encode(read_texts(config.prompts), config.target), NUM_PROMPTS)
    settings = {_fixed(k): k for k in FIXED} | {ADAPTIVE: any_k.ADAPTIVE}
    samples: dict[str, list[float]] = {}
    async with open_verifier(config, SPLIT, journal, adaptive_k=True, verifier_module=any_k.MODULE) as verifier:
        for k in settings.values():
            await _write(verifier, k, prompts)
        for batch, num_groups in NUM_GROUPS.items():
            tried = settings
            for number in range(NUM_PASSES):
                rates = await _pass(verifier, tried, groups(prompts, batch, num_groups))
                for name, rate in rates.items():
                    samples.setdefault(_sample(batch, name), []).append(rate)
                found = ", ".join(f"{name}: {rate:.1f}" for name, rate in rates.items())
                journal.on_event(f"batch {batch}, pass {number + 1} of {NUM_PASSES}, tokens/s with {found}")
                tried = {name: settings[name] for name in promising(rates)} if number == 0 else tried
    return _section(samples)


def groups(prompts: Sequence[Prompt], batch: int, num_groups: int) -> list[list[Prompt]]:
    """So many groups of `batch` prompts, from all over the list; they overlap where it is short."""
    starts = [number * len(prompts) // num_groups for number in range(num_groups)]
    return [[prompts[(start + place) % len(prompts)] for place in range(batch)] for start in starts]


async def _pass(
    verifier: VerifierClient, settings: Mapping[str, int], texts: Sequence[Sequence[Prompt]]
) -> dict[str, float]:
    """Tokens a second of each setting over all groups."""
    names, tokens, seconds = list(settings), dict.fromkeys(settings, 0), dict.fromkeys(settings, 0.0)
    for group in texts:
        names.reverse()  # in turn, so that nobody always comes first
        for name in names:
            counted = count_together(await _write(verifier, settings[name], group))
            tokens[name] += counted[0]
            seconds[name] += counted[1]
    return {name: tokens[name] / seconds[name] for name in settings}


async def _write(verifier: VerifierClient, k: int, prompts: Sequence[Prompt]) -> Sequence[Stream]:
    """A text for each prompt, all at once."""
    ask = Ask(MAX_TOKENS, k, cache_salt=CACHE_SALT)
    return await asyncio.gather(*(verifier.generate(one.token_ids, ask) for one in prompts))


def promising(rates: Mapping[str, float]) -> list[str]:
    """Adaptive K, and those of the fixed settings that may turn out to be the best one."""
    best = max(rate for name, rate in rates.items() if name != ADAPTIVE)
    return [name for name, rate in rates.items() if name == ADAPTIVE or rate >= HOPELESS * best]


def _section(samples: dict[str, list[float]]) -> Section:
    names = [*(_fixed(k) for k in FIXED), ADAPTIVE]
    lines = [
        f"Adaptive K: tokens/s while all of a batch are written, {MAX_TOKENS} tokens a text, greedy, medians of"
        f" {NUM_PASSES} passes",
        "(a fixed K far behind in the first pass: that one's)",
        f"{'':<12}{''.join(f'{name:>12}' for name in names)}",
    ]
    goals = []
    for batch in NUM_GROUPS:
        rates = {name: samples[_sample(batch, name)] for name in names}
        lines.append(f"{f'batch {batch}':<12}{''.join(f'{median(rates[name]):>12.1f}' for name in names)}")
        fixed = {name: rates[name] for name in names[:-1] if len(rates[name]) == NUM_PASSES}
        best, ratios = against_best(rates[ADAPTIVE], fixed)
        goals.append(Goal(f"adaptive K / {best}, best at batch {batch}", median(ratios), "x", GOAL))
    return Section(NAME, tuple(lines), tuple(goals), samples)


def against_best(adaptive: Sequence[float], fixed: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The fixed setting that is best in most passes, and what adaptive K reaches of the best one, pass by pass.

    The best of a pass is the one with the highest median of all *other* passes. Chosen by the pass itself, it would
    be the luckiest of several noisy figures, and nothing that is as fast could reach it.
    """
    ratios, chosen = [], []
    for number, ours in enumerate(adaptive):
        best = max(fixed, key=lambda name: median(fixed[name][:number] + fixed[name][number + 1 :]))
        chosen.append(best)
        # Pass by pass: what else the machine did then slowed both.
        ratios.append(ours / fixed[best][number])
    return mode(chosen), ratios


def _fixed(k: int) -> str:
    return f"K = {k}"


def _sample(batch: int, name: str) -> str:
    return f"batch {batch}, {name}, tokens per second"
