"""Adaptive K beside every fixed one, over batches."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from statistics import median, mode

from tandem.cli.bench import any_k
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import rate_together
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.up_config import SPLIT

NAME = "adaptive-k"
FIXED = (0, 1, 2, 4, any_k.MAX_DRAFTS)
ADAPTIVE = "adaptive"
MAX_TOKENS = 64
NUM_TURNS = {1: 48, 4: 44, 16: 22}  # streams at a time -> texts of each; about as much time for every batch
NUM_TRIALS = 4  # turns with every fixed K
HOPELESS = 0.92  # of the best one's median in the trials: such a K is not tried further
NUM_PROMPTS = 40
CACHE_SALT = "adaptive K"  # every prompt is computed once, however often it is asked for
GOAL = 0.97


async def measure_adaptive_k(config: BenchConfig, journal: Journal) -> Section:
    """Tokens a second while a batch is complete, of every setting in turn, and again.

    All settings are served by one verifier, so that nothing but K differs. What adaptive K knows is what it found out
    in its own turns.

    Raises:
        TandemError: something could not be measured.
    """
    config = replace(config, num_speculative_tokens=any_k.ADAPTIVE)
    every_prompt = await encode(read_texts(config.prompts), config.target)
    prompts = spread(every_prompt, max(min(NUM_PROMPTS, len(every_prompt)), max(NUM_TURNS)))
    settings = {_fixed(k): k for k in FIXED} | {ADAPTIVE: any_k.ADAPTIVE}
    samples: dict[str, list[float]] = {}
    async with open_verifier(config, SPLIT, journal, adaptive_k=True, verifier_module=any_k.MODULE) as verifier:
        for k in settings.values():
            await _write(verifier, k, prompts[: max(NUM_TURNS)])
        for batch, num_turns in NUM_TURNS.items():
            names = list(settings)
            for turn in range(num_turns):
                # Everybody writes the same texts of a turn, one right after the other.
                texts = [prompts[(turn + place) % len(prompts)] for place in range(batch)]
                for name in names if turn % 2 else reversed(names):
                    rate = rate_together(await _write(verifier, settings[name], texts))
                    samples.setdefault(_sample(batch, name), []).append(rate)
                    journal.on_event(f"batch {batch}, turn {turn + 1} of {num_turns}, {name}: {rate:.1f} tokens/s")
                if turn + 1 == NUM_TRIALS:
                    names = promising({name: samples[_sample(batch, name)] for name in names})
    return _section(samples)


async def _write(verifier: VerifierClient, k: int, prompts: Sequence[Prompt]) -> Sequence[Stream]:
    """A text for each prompt, all at once."""
    ask = Ask(MAX_TOKENS, k, cache_salt=CACHE_SALT)
    return await asyncio.gather(*(verifier.generate(one.token_ids, ask) for one in prompts))


def promising(rates: dict[str, list[float]]) -> list[str]:
    """Adaptive K, and those of the fixed settings that may turn out to be the best one."""
    medians = {name: median(found) for name, found in rates.items()}
    best = max(medians[name] for name in rates if name != ADAPTIVE)
    return [name for name in rates if name == ADAPTIVE or medians[name] >= HOPELESS * best]


def _section(samples: dict[str, list[float]]) -> Section:
    names = [*(_fixed(k) for k in FIXED), ADAPTIVE]
    turns = ", ".join(f"{number} at batch {batch}" for batch, number in NUM_TURNS.items())
    lines = [
        f"Adaptive K: tokens/s while all of a batch are written, {MAX_TOKENS} tokens a text, greedy, medians of turns:",
        turns,
        f"(a fixed K far behind after {NUM_TRIALS} turns: of those)",
        f"{'':<12}{''.join(f'{name:>12}' for name in names)}",
    ]
    goals = []
    for batch, num_turns in NUM_TURNS.items():
        rates = {name: samples[_sample(batch, name)] for name in names}
        lines.append(f"{f'batch {batch}':<12}{''.join(f'{median(rates[name]):>12.1f}' for name in names)}")
        fixed = {name: rates[name] for name in names[:-1] if len(rates[name]) == num_turns}
        best, ratios = against_best(rates[ADAPTIVE], fixed)
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
