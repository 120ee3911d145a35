"""What a head over centroids costs the drafter in acceptance, and gains it in time."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from tandem.cli.bench.acceptance import acceptance
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.table import NAME_WIDTH
from tandem.cli.bench.throughput import throughput
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.up import private_directory
from tandem.cli.up_config import SPLIT
from tandem.verifier.config import IN_PROCESS

NAME = "centroids"
DENSE = "every token scored"
CLUSTER_SIZES = (16, 8)  # tokens
SHARE_SCORED = 8  # one in so many clusters
ITERATIONS = 10
NUM_PROMPTS = 6
MAX_TOKENS = 40
NUM_TURNS = 2

Streams = Mapping[str, Sequence[Stream]]  # by head: the texts of the first turn, then those of the next


async def measure_centroids(config: BenchConfig, journal: Journal) -> Section:
    """Each sampled text with every head in turn, and all again; drafts are made inside the verifier.

    Raises:
        TandemError: a head cannot be made or asked, or changed a text.
    """
    prompts = spread(await encode(read_texts(config.prompts), config.target), NUM_PROMPTS)
    streams: dict[str, list[Stream]] = {}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(private_directory(config.exchange_directory))
        verifiers: dict[str, VerifierClient] = {}
        for name, draft_model in (await asyncio.to_thread(_make_heads, config, folder)).items():
            opened = open_verifier(replace(config, draft_model=draft_model), IN_PROCESS, journal)
            verifiers[name] = await stack.enter_async_context(opened)
            await _write(verifiers[name], prompts[0], config, 0)  # the first text waits longer
        for turn in range(1, NUM_TURNS + 1):
            for index, prompt in enumerate(prompts):
                order = list(verifiers) if (turn + index) % 2 else [*reversed(verifiers)]
                for name in order:
                    streams.setdefault(name, []).append(await _write(verifiers[name], prompt, config, index))
            journal.on_event(f"turn {turn} of {NUM_TURNS}")
    return section(streams, config)


def section(streams: Streams, config: BenchConfig) -> Section:
    """The figures of all turns.

    Raises:
        MeasurementFailed: a head changed a text.
    """
    texts = {name: [stream.token_ids for stream in written] for name, written in streams.items()}
    if any(written != texts[DENSE] for written in texts.values()):
        raise MeasurementFailed("a head of the drafter changed a text")
    lines = [
        f"Head of the drafter: {NUM_PROMPTS} prompts, {MAX_TOKENS} tokens each, T = {config.temperature:g}, "
        f"{NUM_TURNS} turns",
        f"{'':<{NAME_WIDTH}}{'acceptance length':>19}{'ms a round':>12}",
    ]
    lengths = {name: _length(streams[name], config) for name in (DENSE, *streams)}
    times = {name: [throughput([[stream]]).ms_per_round for stream in written] for name, written in streams.items()}
    goals = []
    for name in lengths:
        lines.append(f"{name:<{NAME_WIDTH}}{lengths[name]:>19.2f}{median(times[name]):>12.2f}")
        if name != DENSE:
            # Text by text: what else the machine did then slowed both.
            ratio = median(ours / theirs for ours, theirs in zip(times[name], times[DENSE], strict=True))
            goals.append(Goal(f"acceptance length: {name} / all", lengths[name] / lengths[DENSE], "x"))
            goals.append(Goal(f"time of a round: {name} / all", ratio, "x"))
    samples = {f"acceptance_length {name}": [length] for name, length in lengths.items()}
    samples |= {f"ms_per_round {name}": of_texts for name, of_texts in times.items()}
    return Section(NAME, tuple(lines), tuple(goals), samples)


def _length(streams: Sequence[Stream], config: BenchConfig) -> float:
    found = acceptance(streams, config.temperature, config.num_speculative_tokens, MAX_TOKENS)
    assert found, "a text of several tokens takes a round"
    return found.length


def _make_heads(config: BenchConfig, folder: Path) -> dict[str, str]:
    """Name of a head -> folder of the drafter that has it."""
    from tandem.models.gemma4.centroid_checkpoint import write_with_centroids
    from tandem.models.gemma4.drafter_config import CentroidConfig, read_drafter_config

    source = Path(config.up(SPLIT).draft_model_in_force)
    vocab_size = read_drafter_config(source).text.vocab_size
    heads = {DENSE: str(source)}
    for size in CLUSTER_SIZES:
        centroids = CentroidConfig(vocab_size // size, max(1, vocab_size // size // SHARE_SCORED))
        output = folder / f"drafter-{size}"
        write_with_centroids(source, output, centroids, ITERATIONS)
        heads[f"{centroids.top_k} of {centroids.num_centroids} clusters"] = str(output)
    return heads


async def _write(verifier: VerifierClient, prompt: Prompt, config: BenchConfig, index: int) -> Stream:
    ask = Ask(MAX_TOKENS, config.num_speculative_tokens, config.temperature, config.seed + index)
    return await verifier.generate(prompt.token_ids, ask)
