"""What a JSON Schema costs: the same prompts with and without one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.measuring import in_batches
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import Throughput, throughput
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.up_config import SPLIT
from tandem.v1 import types_pb2

NAME = "structured output"
BATCHES = (1, 4)
WARM_UP_TOKENS = 16
# So long a list that no text gets to its end.
SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "size": {"type": "integer", "minimum": 0, "maximum": 9999},
            "kind": {"enum": ["file", "folder", "link"]},
        },
        "required": ["name", "size", "kind"],
        "additionalProperties": False,
    },
}
FORMATS = {"free text": None, "JSON Schema": types_pb2.OutputFormat(json_schema=json.dumps(SCHEMA))}


async def measure_structured_output(config: BenchConfig, journal: Journal) -> Section:
    """Both in turn, and again, at every batch size.

    Raises:
        TandemError: something could not be measured.
    """
    prompts = spread(await encode(read_texts(config.prompts), config.target), max(BATCHES))
    runs: dict[tuple[int, str], list[Throughput]] = {}
    async with open_verifier(config, SPLIT, journal) as verifier:
        ask = Ask(config.max_tokens, config.num_speculative_tokens)
        for output_format in FORMATS.values():
            warm_up = replace(ask, max_tokens=WARM_UP_TOKENS, output_format=output_format)
            await verifier.generate(prompts[0].token_ids, warm_up)
        for number in range(1, config.runs + 1):
            for batch in BATCHES:
                for name, output_format in FORMATS.items():
                    asked = replace(ask, output_format=output_format)
                    figures = throughput(await _generate(verifier, prompts, batch, asked))
                    runs.setdefault((batch, name), []).append(figures)
            journal.on_event(f"{NAME}: run {number} of {config.runs}")
    return _section(runs)


async def _generate(verifier: VerifierClient, prompts: Sequence[Prompt], batch: int, ask: Ask) -> list[list[Stream]]:
    return await in_batches(lambda prompt: verifier.generate(prompt.token_ids, ask), prompts, batch)


def _section(runs: dict[tuple[int, str], list[Throughput]]) -> Section:
    lines = [f"Structured output, greedy{'tokens/s':>33}{'ms a round':>12}{'tokens a round':>16}"]
    for (batch, name), figures in runs.items():
        lines.append(
            f"{f'batch {batch}, {name}':<48}{median(f.tokens_per_second for f in figures):>10.1f}"
            f"{median(f.ms_per_round for f in figures):>12.1f}{median(f.tokens_per_round for f in figures):>16.2f}"
        )
    free, confined = FORMATS
    goals = tuple(
        Goal(f"batch {batch}: JSON Schema / free text, tokens/s", _ratio(runs[batch, confined], runs[batch, free]), "x")
        for batch in BATCHES
    )
    samples = {
        f"{NAME}, batch {batch}, {name}, tokens/s": [f.tokens_per_second for f in figures]
        for (batch, name), figures in runs.items()
    }
    return Section(NAME, tuple(lines), goals, samples)


def _ratio(one: Sequence[Throughput], other: Sequence[Throughput]) -> float:
    return median(f.tokens_per_second for f in one) / median(f.tokens_per_second for f in other)
