"""Asks a replica for texts, kind after kind and again."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence

from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.figures import Measured, Run, Text, run_figures
from tandem.cli.bench.preset.kinds import Kind
from tandem.cli.bench.preset.replica import Replica
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.stream import Arrival
from tandem.v1 import types_pb2

# Of the published generation configuration of the family.
TOP_K, TOP_P = 64, 0.95
# Far apart and without a common factor, so that no two prompts are alike.
TOKEN_STEP, PROMPT_STEP = 7919, 104_729


class Reader:
    """A client of the gateway that never asks for the same prompt twice."""

    def __init__(self, replica: Replica, config: PresetConfig, vocab_size: int) -> None:
        """Asks `replica` for texts."""
        self._replica = replica
        self._config = config
        self._vocab_size = vocab_size
        self._numbers: Iterator[int] = itertools.count()

    async def run(self, kind: Kind) -> Run:
        """Texts of a kind, together.

        Raises:
            MeasurementFailed: one was too short to measure anything.
        """
        return run_figures(await self.texts(kind))

    async def texts(self, kind: Kind) -> list[Text]:
        """The texts themselves; see `run`."""
        return await asyncio.gather(*(self._text(kind) for _ in range(kind.batch)))

    async def _text(self, kind: Kind) -> Text:
        arrivals: list[Arrival] = []

        def on_delta(delta: types_pb2.Delta) -> None:
            if delta.num_tokens:
                arrivals.append(Arrival(time.perf_counter(), delta.num_tokens))

        spec = self._spec(kind, next(self._numbers))
        started_at = time.perf_counter()
        figures = await self._replica.gateway.generate(spec, on_delta)
        if len(arrivals) < 2:
            raise MeasurementFailed("a text came in one piece: ask for more tokens with --max-tokens")
        return Text(started_at, tuple(arrivals), figures.num_rounds, figures.num_accepted_tokens)

    def _spec(self, kind: Kind, number: int) -> types_pb2.GenerationSpec:
        places = range(kind.prompt_tokens)
        ids = [1 + (TOKEN_STEP * place + PROMPT_STEP * number) % (self._vocab_size - 1) for place in places]
        temperature = self._config.temperature
        sampling = types_pb2.SamplingOptions(temperature=temperature, seed=number)
        if temperature:
            sampling.top_k, sampling.top_p = TOP_K, TOP_P
        return types_pb2.GenerationSpec(
            token_ids=types_pb2.TokenIds(ids=ids),
            cache_salt=f"bench {number}",
            sampling=sampling,
            stopping=types_pb2.StoppingOptions(max_tokens=kind.max_tokens, ignore_eos=True),
        )


async def measure(
    reader: Reader, drafter: str, kinds: Sequence[Kind], num_runs: int, journal: Journal
) -> list[Measured]:
    """Each kind in turn, and all again; before that each once, for what is made at first use.

    Raises:
        TandemError: a text did not come.
    """
    for kind in kinds:
        await reader.run(kind)
    journal.on_event(f"{drafter}: all is warm")
    runs: dict[Kind, list[Run]] = {kind: [] for kind in kinds}
    for number in range(1, num_runs + 1):
        for kind in kinds:
            run = await reader.run(kind)
            runs[kind].append(run)
            journal.on_event(
                f"run {number} of {num_runs}, {drafter}, {kind}: "
                f"{run.tokens_per_second:.1f} tokens/s, {run.ms_per_round:.2f} ms a round, "
                f"first token after {run.first_token_ms:.0f} ms"
            )
    return [Measured(drafter, kind, tuple(found)) for kind, found in runs.items()]
