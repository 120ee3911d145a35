"""The figures that the benchmark is for, each beside what is wanted of it."""

from tandem.cli.bench.goal import Goal
from tandem.cli.bench.results import Results
from tandem.cli.bench.throughput import How

DRAFTER_GAIN = 1.5
TRANSFORMERS_GAIN = 2.0
BATCH_GAIN = 2.5
GATEWAY_MS = 5.0
GREEDY_ACCEPTANCE = 3.0


def goals(results: Results) -> list[Goal]:
    """All of them. A ratio is that of two medians of tokens a second, the wait for the first token included."""
    batch = results.config.batch
    return [
        Goal("with drafter / without, batch 1", _ratio(results, How.SPLIT, How.PLAIN), "x", DRAFTER_GAIN),
        Goal(
            "with drafter / transformers assisted, batch 1",
            _ratio(results, How.SPLIT, How.ASSISTED),
            "x",
            TRANSFORMERS_GAIN,
        ),
        Goal(
            f"batch {batch} / batch 1, with drafter",
            _ratio(results, How.SPLIT, How.SPLIT, batch, 1),
            "x",
            BATCH_GAIN,
        ),
        Goal(f"with drafter / without, batch {batch}", _ratio(results, How.SPLIT, How.PLAIN, batch, batch), "x"),
        Goal("drafter of its own / inside, batch 1", _ratio(results, How.SPLIT, How.IN_PROCESS), "x"),
        Goal(
            f"drafter of its own / inside, batch {batch}",
            _ratio(results, How.SPLIT, How.IN_PROCESS, batch, batch),
            "x",
        ),
        Goal(
            "gateway adds to the first token",
            results.first_token.gateway_adds_ms if results.first_token else None,
            " ms",
            GATEWAY_MS,
            is_upper_bound=True,
        ),
        Goal("acceptance length, T = 0, mean of prompts", _acceptance_length(results, 0.0), "", GREEDY_ACCEPTANCE),
        Goal(
            f"acceptance length, T = {results.config.temperature:g}, mean of prompts",
            _acceptance_length(results, results.config.temperature),
            "",
        ),
        *(goal for section in results.sections for goal in section.goals),
    ]


def _ratio(results: Results, one: How, other: How, batch: int = 1, other_batch: int = 1) -> float | None:
    above, below = results.medians(one, batch), results.medians(other, other_batch)
    return above.tokens_per_second / below.tokens_per_second if above and below else None


def _acceptance_length(results: Results, temperature: float) -> float | None:
    return next((found.mean_prompt_length for found in results.acceptance if found.temperature == temperature), None)
