"""What Gemma 4 31B is to reach on one H200, beside what was measured."""

from tandem.cli.bench.goal import Goal
from tandem.cli.bench.preset.config import AS_DTYPE, FP8
from tandem.cli.bench.preset.kind import Way
from tandem.cli.bench.preset.results import PresetResults
from tandem.cli.up_config import SPLIT
from tandem.verifier.config import IN_PROCESS, NO_DRAFTER

SHAPE = "gemma-4-31b"
SHORT, LONG = 512, 32_768  # tokens of prompts
DRAFTED_RATES = {1: 300.0, 8: 2150.0, 32: 5500.0}  # batch -> tokens a second
PLAIN_RATES = {1: 64.0, 8: 490.0, 32: 1650.0}
SPLIT_COSTS = {1: 3.0, 8: 1.0, 32: 1.0}  # batch -> percent of a round
LONG_RATIO = 1.25
FIRST_TOKEN_MS = 60.0
FP8_RATIO = 1.6

_SPLIT, _INSIDE, _PLAIN = (Way(drafter, AS_DTYPE, False) for drafter in (SPLIT, IN_PROCESS, NO_DRAFTER))
_FP8 = Way(SPLIT, FP8, False)


def preset_goals(results: PresetResults) -> list[Goal]:
    """Those of what was measured; none for another shape."""
    if results.shape != SHAPE:
        return []
    goals = [
        *(_rate(results, _SPLIT, "with MTP", batch, bound) for batch, bound in DRAFTED_RATES.items()),
        *(_rate(results, _PLAIN, "without speculation", batch, bound) for batch, bound in PLAIN_RATES.items()),
        *(_split_cost(results, batch, bound) for batch, bound in SPLIT_COSTS.items()),
        Goal(
            f"ms a round, prompt {LONG} / {SHORT}, batch 1",
            _ratio(
                _figure(results, _SPLIT, 1, LONG, "ms_per_round"), _figure(results, _SPLIT, 1, SHORT, "ms_per_round")
            ),
            "x",
            LONG_RATIO,
            is_upper_bound=True,
        ),
        Goal(
            f"first token, prompt {SHORT}, batch 1",
            _figure(results, _SPLIT, 1, SHORT, "first_token_ms"),
            " ms",
            FIRST_TOKEN_MS,
            is_upper_bound=True,
        ),
        Goal(
            "tokens/s, fp8 / bfloat16 weights, batch 1",
            _ratio(
                _figure(results, _FP8, 1, SHORT, "tokens_per_second"),
                _figure(results, _SPLIT, 1, SHORT, "tokens_per_second"),
            ),
            "x",
            FP8_RATIO,
        ),
    ]
    return [goal for goal in goals if goal.value is not None]


def _rate(results: PresetResults, way: Way, name: str, batch: int, bound: float) -> Goal:
    return Goal(f"tokens/s {name}, batch {batch}", _figure(results, way, batch, SHORT, "tokens_per_second"), "", bound)


def _split_cost(results: PresetResults, batch: int, bound: float) -> Goal:
    ratio = _ratio(*(_figure(results, way, batch, SHORT, "ms_per_round") for way in (_SPLIT, _INSIDE)))
    percent = None if ratio is None else 100 * (ratio - 1)
    return Goal(f"split costs of a round, batch {batch}", percent, "%", bound, is_upper_bound=True)


def _figure(results: PresetResults, way: Way, batch: int, prompt_tokens: int, name: str) -> float | None:
    found = results.find(way, batch, prompt_tokens)
    return found.median(name) if found else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below
