"""What one run of texts shows, and what all runs of a kind show together."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tandem.cli.bench.stream import Arrival


@dataclass(frozen=True)
class Text:
    """One text, as its reader saw it arrive from the gateway. The first arrival is the prefill's."""

    started_at: float  # seconds on the reader's clock
    arrivals: tuple[Arrival, ...]
    num_rounds: int  # by the verifier's account
    num_accepted: int  # drafts, likewise


@dataclass(frozen=True)
class Run:
    """The figures of texts that ran together."""

    tokens_per_second: float  # while every text was past its first token and none had ended
    whole_tokens_per_second: float  # from the first request to the last token: prompts take their share
    ms_per_round: float  # in the time of `tokens_per_second`
    first_token_ms: float  # the median of the texts
    acceptance_length: float  # tokens a round, the target's own included


def run_figures(texts: Sequence[Text]) -> Run:
    """The figures of texts that ran together, each of two arrivals at least."""
    firsts = [text.arrivals[0].at for text in texts]
    started_at, ended_at = min(text.started_at for text in texts), max(text.arrivals[-1].at for text in texts)
    begin, end = max(firsts), min(text.arrivals[-1].at for text in texts)
    if end <= begin:  # short texts: the first one ended before the last one began
        begin, end = min(firsts), ended_at
    rounds = [arrival for text in texts for arrival in text.arrivals[1:] if begin < arrival.at <= end]
    num_rounds = sum(text.num_rounds for text in texts)
    return Run(
        tokens_per_second=sum(arrival.num_tokens for arrival in rounds) / (end - begin),
        whole_tokens_per_second=sum(arrival.num_tokens for text in texts for arrival in text.arrivals)
        / (ended_at - started_at),
        ms_per_round=1000 * (end - begin) * len(texts) / len(rounds),
        first_token_ms=1000 * median(first - text.started_at for first, text in zip(firsts, texts, strict=True)),
        acceptance_length=1 + sum(text.num_accepted for text in texts) / num_rounds,
    )
