"""The measurements themselves: who is asked for what, and in which order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tandem.cli.bench.acceptance import Acceptance, acceptance
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.latency import FirstToken
from tandem.cli.bench.prompts import Prompt
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import How, Measured, Throughput, throughput
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.client import Client
from tandem.v1 import types_pb2

Progress = Callable[[str], None]

FIRST_TOKEN_TOKENS = 8  # a first token in real life is followed by rounds that want the same cores


@dataclass(frozen=True)
class Contender:
    """One who generates."""

    how: How
    batches: tuple[int, ...]  # streams at a time
    generate: Callable[[Prompt, int], Awaitable[Stream]]  # after a prompt, so many tokens


@dataclass(frozen=True)
class Texts:
    """The measured runs, and what was written in them."""

    measured: tuple[Measured, ...]
    token_ids: dict[How, list[tuple[int, ...]]]  # at batch 1, one text a prompt


async def measure_throughput(
    contenders: Sequence[Contender], prompts: Sequence[Prompt], config: BenchConfig, progress: Progress
) -> Texts:
    """Everybody in turn, and again: what disturbs the machine for a while then disturbs all alike."""
    batches = sorted({batch for contender in contenders for batch in contender.batches})
    turns = [(batch, contender) for batch in batches for contender in contenders if batch in contender.batches]
    runs: dict[tuple[How, int], list[tuple[Throughput, list[Stream]]]] = {}
    for number in range(1, config.runs + 1):
        for batch, contender in turns:
            streams = await in_batches(partial(_generate, contender, config.max_tokens), prompts, batch)
            figures = throughput(streams)
            flat = [stream for together in streams for stream in together]
            runs.setdefault((contender.how, batch), []).append((figures, flat))
            progress(
                f"run {number} of {config.runs}, batch {batch}, {contender.how.value}: "
                f"{figures.tokens_per_second:.1f} tokens/s"
            )
    return Texts(
        tuple(
            Measured(
                how,
                batch,
                tuple(figures for figures, _ in found),
                tuple(tuple(stream.sample for stream in streams) for _, streams in found),
            )
            for (how, batch), found in runs.items()
        ),
        {how: [stream.token_ids for stream in found[-1][1]] for (how, batch), found in runs.items() if batch == 1},
    )


def _generate(contender: Contender, max_tokens: int, prompt: Prompt) -> Awaitable[Stream]:
    return contender.generate(prompt, max_tokens)


async def in_batches(
    generate: Callable[[Prompt], Awaitable[Stream]], prompts: Sequence[Prompt], batch: int
) -> list[list[Stream]]:
    """A text for each prompt, so many at a time; the next ones begin when all of these have ended."""
    return [
        list(await asyncio.gather(*map(generate, prompts[start : start + batch])))
        for start in range(0, len(prompts), batch)
    ]


async def measure_acceptance(
    verifier: VerifierClient, prompts: Sequence[Prompt], temperature: float, config: BenchConfig
) -> Acceptance | None:
    """As many texts as wanted, up to their own ends; None where no text needed a round.

    A text that ends with its first token says nothing: the next prompt takes its place.
    """
    places = asyncio.Semaphore(config.batch)

    async def generate(index: int) -> Stream:
        ask = Ask(config.max_tokens, config.num_speculative_tokens, temperature, config.seed + index, ignore_eos=False)
        async with places:
            return await verifier.generate(prompts[index].token_ids, ask)

    streams: list[Stream] = []
    while missing := config.acceptance_prompts - sum(bool(stream.rounds) for stream in streams):
        following = range(len(streams), min(len(streams) + missing, len(prompts)))
        if not following:
            break
        streams.extend(await asyncio.gather(*map(generate, following)))
    return acceptance(streams, temperature, config.num_speculative_tokens, config.max_tokens)


async def measure_first_token(
    verifier: VerifierClient, gateway: Client, prompts: Iterable[Prompt], config: BenchConfig
) -> FirstToken:
    """The same prompts of both, one after the other; who comes first changes each time."""
    waits: dict[bool, list[float]] = {False: [], True: []}
    for index, prompt in enumerate(prompts):
        for is_gateway in (index % 2 == 0, index % 2 == 1):
            if is_gateway:
                spec = _spec(prompt.text, f"first token {index}", config)
                seconds = (await gateway.generate(spec, lambda _delta: None)).first_token_seconds
            else:
                ask = Ask(FIRST_TOKEN_TOKENS, config.num_speculative_tokens)
                seconds = (await verifier.generate(prompt.token_ids, ask)).sample.first_token_seconds
            waits[is_gateway].append(1000 * seconds)
    return FirstToken(tuple(waits[False]), tuple(waits[True]))


def _spec(text: str, cache_salt: str, config: BenchConfig) -> types_pb2.GenerationSpec:
    return types_pb2.GenerationSpec(
        text=text,
        cache_salt=cache_salt,
        sampling=types_pb2.SamplingOptions(temperature=0.0),
        stopping=types_pb2.StoppingOptions(max_tokens=FIRST_TOKEN_TOKENS, ignore_eos=True),
        speculation=types_pb2.SpeculationOptions(num_speculative_tokens=config.num_speculative_tokens),
    )
