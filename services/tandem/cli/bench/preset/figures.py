"""What one run of texts shows, and what all runs of a kind show together."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import truediv
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

    tokens_per_second: float  # of all texts, while every one was past its first token and none had ended
    whole_tokens_per_second: float  # from the first request to the last token: prompts take their share
    ms_per_round: float  # in the time of `tokens_per_second`
    first_token_ms: float  # the median of the texts
    acceptance_length: float  # tokens a round, the target's own included


def run_figures(texts: Sequence[Text]) -> Run:
    """The figures of texts that ran together, each of two arrivals at least."""
    firsts, lasts = [text.arrivals[0].at for text in texts], [text.arrivals[-1].at for text in texts]
    whole_seconds = max(lasts) - min(text.started_at for text in texts)
    num_rounds = sum(text.num_rounds for text in texts)
    tokens_per_second, seconds_per_round = _pace(texts, max(firsts), min(lasts))
    return Run(
        tokens_per_second=tokens_per_second,
        whole_tokens_per_second=sum(arrival.num_tokens for text in texts for arrival in text.arrivals) / whole_seconds,
        ms_per_round=1000 * seconds_per_round,
        first_token_ms=1000 * median(first - text.started_at for first, text in zip(firsts, texts, strict=True)),
        acceptance_length=1 + sum(text.num_accepted for text in texts) / num_rounds,
    )


def _pace(texts: Sequence[Text], begin: float, end: float) -> tuple[float, float]:
    """Tokens a second of all texts, and seconds a round of one, while they run together.

    Of each text from one arrival to another: those of one round do not come at the same moment, and the moment when the
    first text ends would cut the last round off from all others.
    """
    together = [[arrival for arrival in text.arrivals if begin <= arrival.at <= end] for text in texts]
    if min(map(len, together)) < 2:  # short texts: they are measured from the first token of all to the last
        rounds = [arrival for text in texts for arrival in text.arrivals[1:]]
        seconds = max(text.arrivals[-1].at for text in texts) - min(text.arrivals[0].at for text in texts)
        return sum(arrival.num_tokens for arrival in rounds) / seconds, seconds * len(texts) / len(rounds)
    seconds_of = [arrivals[-1].at - arrivals[0].at for arrivals in together]
    tokens_of = [sum(arrival.num_tokens for arrival in arrivals[1:]) for arrivals in together]
    num_rounds = sum(len(arrivals) - 1 for arrivals in together)
    return sum(map(truediv, tokens_of, seconds_of)), sum(seconds_of) / num_rounds
