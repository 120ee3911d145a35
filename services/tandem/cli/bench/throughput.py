"""From the streams of one run to tokens a second."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.stream import Sample, Stream


class How(enum.Enum):
    """Who generates."""

    SPLIT = "with drafter"
    IN_PROCESS = "drafter inside the verifier"
    LOOKUP = "with lookup drafter"
    PLAIN = "without drafter"
    ASSISTED = "transformers, assisted"
    UNASSISTED = "transformers, plain"


@dataclass(frozen=True)
class Throughput:
    """The figures of one run, or the medians of several."""

    tokens_per_second: float  # from the request to the last token
    decode_tokens_per_second: float  # from the first token to the last
    ms_per_round: float
    tokens_per_round: float


@dataclass(frozen=True)
class Measured:
    """All runs of one measurement."""

    how: How
    batch: int
    runs: tuple[Throughput, ...]
    samples: tuple[tuple[Sample, ...], ...]  # of each run, one a prompt

    @property
    def medians(self) -> Throughput:
        """Each figure's own median."""
        return Throughput(
            median(run.tokens_per_second for run in self.runs),
            median(run.decode_tokens_per_second for run in self.runs),
            median(run.ms_per_round for run in self.runs),
            median(run.tokens_per_round for run in self.runs),
        )


def throughput(batches: Sequence[Sequence[Stream]]) -> Throughput:
    """The figures of one run.

    Args:
        batches: ran one after the other; the streams of each ran together. Every stream has two arrivals at least.
    """
    streams = [stream for batch in batches for stream in batch]
    seconds = sum(_last(batch) - min(stream.started_at for stream in batch) for batch in batches)
    decode_seconds = sum(_last(batch) - min(stream.first_at for stream in batch) for batch in batches)
    num_rounds = sum(len(stream.rounds) for stream in streams)
    num_decoded = sum(stream.num_decoded for stream in streams)
    return Throughput(
        tokens_per_second=sum(len(stream.token_ids) for stream in streams) / seconds,
        decode_tokens_per_second=num_decoded / decode_seconds,
        ms_per_round=1000 * sum(stream.ended_at - stream.first_at for stream in streams) / num_rounds,
        tokens_per_round=num_decoded / num_rounds,
    )


def count_together(streams: Sequence[Stream]) -> tuple[int, float]:
    """Tokens, and seconds, while all of the streams are written.

    Before that, prompts are computed; after that, the batch is no longer as large as is said. Texts that ran together
    end at different times, the further apart the more drafts a round has.

    Raises:
        MeasurementFailed: they were never written together.
    """
    began, ended = max(stream.first_at for stream in streams), min(stream.ended_at for stream in streams)
    if ended <= began:
        raise MeasurementFailed("a text of a batch ended before the first token of another: they are too short")
    num_tokens = sum(
        arrival.num_tokens for stream in streams for arrival in stream.arrivals if began < arrival.at <= ended
    )
    return num_tokens, ended - began


def count_equal_texts(token_ids: Mapping[How, Sequence[tuple[int, ...]]]) -> dict[How, int]:
    """How many texts each wrote exactly as `How.SPLIT` did.

    Args:
        token_ids: one text a prompt, the same prompts of everybody.
    """
    drafted = token_ids[How.SPLIT]
    return {
        how: sum(text == expected for text, expected in zip(texts, drafted, strict=True))
        for how, texts in token_ids.items()
        if how is not How.SPLIT
    }


def _last(batch: Sequence[Stream]) -> float:
    return max(stream.ended_at for stream in batch)
