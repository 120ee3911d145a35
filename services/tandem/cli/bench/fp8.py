"""What weights, keys and values of 8 bits change in the texts, and in how many drafts are accepted.

Agreement is counted token by token, each time after what the wider formats wrote: a text that has parted once says
nothing about the tokens that follow.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from tandem.cli.bench.acceptance import acceptance
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.table import NAME_WIDTH
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.verifier.config import FP8, IN_PROCESS

NAME = "fp8"
WIDE = "no 8 bits"
FORMATS: dict[str, dict[str, str]] = {
    WIDE: {},
    "weights of 8 bits": {"weights": FP8},
    "KV of 8 bits": {"kv_dtype": FP8},
    "both of 8 bits": {"weights": FP8, "kv_dtype": FP8},
}
NUM_PROMPTS = 8
MAX_TOKENS = 40


@dataclass(frozen=True)
class Written:
    """What a verifier of some formats wrote, all greedy."""

    drafted: tuple[Stream, ...]  # one text a prompt
    plain: tuple[tuple[int, ...], ...]  # the same without drafts
    following: tuple[tuple[int, ...], ...]  # its own token after each beginning of the text of the wider formats


async def measure_fp8(config: BenchConfig, journal: Journal) -> Section:
    """Each setting by itself, one after the other; drafts are made inside the verifier.

    Raises:
        TandemError: a verifier cannot be asked, or its texts depend on its drafts.
    """
    prompts = spread(await encode(read_texts(config.prompts), config.target), NUM_PROMPTS)
    written: dict[str, Written] = {}
    for name, formats in FORMATS.items():
        async with open_verifier(config, IN_PROCESS, journal, formats=formats) as verifier:
            drafted = [await _write(verifier, prompt, config.num_speculative_tokens) for prompt in prompts]
            plain = [(await _write(verifier, prompt, 0)).token_ids for prompt in prompts]
            wide = written[WIDE].plain if written else plain
            following = [await _follow(verifier, *one) for one in zip(prompts, wide, strict=True)]
        written[name] = Written(tuple(drafted), tuple(plain), tuple(following))
        journal.on_event(name)
    return section(written, config.num_speculative_tokens)


def section(written: Mapping[str, Written], k: int) -> Section:
    """The figures of all formats.

    Raises:
        MeasurementFailed: a text depends on whether it was drafted.
    """
    wide = written[WIDE].plain
    lines = [
        f"8 bits: {len(wide)} prompts, {MAX_TOKENS} tokens each, greedy",
        f"{'':<{NAME_WIDTH}}{'acceptance length':>19}{'same tokens':>13}{'same texts':>12}{'first other token':>19}",
    ]
    goals: list[Goal] = []
    samples: dict[str, list[float]] = {}
    for name, own in written.items():
        if tuple(stream.token_ids for stream in own.drafted) != own.plain:
            raise MeasurementFailed(f"{name}: a drafter changed a text")
        found = acceptance(own.drafted, 0.0, k, MAX_TOKENS)
        assert found, "a text of several tokens takes a round"
        agreements = [_share_equal(*texts) for texts in zip(own.following, wide, strict=True)]
        firsts = [_num_equal(*texts) for texts in zip(own.plain, wide, strict=True)]
        num_same = sum(first == len(text) for first, text in zip(firsts, wide, strict=True))
        first = f"{mean(firsts):.1f}" if num_same < len(wide) else "none"
        lines.append(
            f"{name:<{NAME_WIDTH}}{found.length:>19.2f}{mean(agreements):>13.1%}{f'{num_same} of {len(wide)}':>12}"
            f"{first:>19}"
        )
        samples |= {f"acceptance_length {name}": list(found.prompt_lengths), f"same_tokens {name}": agreements}
        if name != WIDE:
            goals.append(Goal(f"same greedy tokens: {name}", 100 * mean(agreements), "%"))
    return Section(NAME, tuple(lines), tuple(goals), samples)


def _share_equal(ours: Sequence[int], theirs: Sequence[int]) -> float:
    return mean(one == other for one, other in zip(ours, theirs, strict=True))


def _num_equal(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Tokens before the first that differs."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    return next((index for index, (one, other) in pairs if one != other), len(ours))


async def _write(verifier: VerifierClient, prompt: Prompt, k: int) -> Stream:
    return await verifier.generate(prompt.token_ids, Ask(MAX_TOKENS, k))


async def _follow(verifier: VerifierClient, prompt: Prompt, text: Sequence[int]) -> tuple[int, ...]:
    """The verifier's next token after each beginning of a text."""
    ask = Ask(1, 0, cache_salt=NAME)  # of all: what begins alike is computed once
    begun = [verifier.generate((*prompt.token_ids, *text[:length]), ask) for length in range(len(text))]
    return tuple(stream.token_ids[0] for stream in await asyncio.gather(*begun))
