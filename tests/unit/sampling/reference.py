"""The definitions again, slowly, in plain Python: what the tests compare with."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from scipy import stats

from tandem.core.sampling_params import SamplingParams

Outcome = TypeVar("Outcome", bound=Hashable)


def filtered_distribution(logits: Sequence[float], params: SamplingParams) -> list[float]:
    """Temperature, top-k, top-p, min-p in turn, each written as its sentence says."""
    kept = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if params.is_greedy:
        return [float(token == kept[0]) for token in range(len(logits))]
    weight = {token: math.exp((logits[token] - logits[kept[0]]) / params.temperature) for token in kept}
    if params.top_k:
        kept = kept[: params.top_k]
    total, mass, smallest = sum(weight[token] for token in kept), 0.0, []
    for token in kept:
        smallest.append(token)
        mass += weight[token] / total
        if params.top_p < 1.0 and mass >= params.top_p:
            break
    kept = [token for token in smallest if weight[token] >= params.min_p * weight[smallest[0]]]
    total = sum(weight[token] for token in kept)
    return [weight[token] / total if token in kept else 0.0 for token in range(len(logits))]


def penalized(
    logits: Sequence[float], prompt: Sequence[int], output: Sequence[int], params: SamplingParams
) -> list[float]:
    """Penalties and bias for one row whose history is `prompt` + `output`."""
    result = []
    bias = dict(params.logit_bias)
    for token, logit in enumerate(logits):
        if token in prompt or token in output:
            logit = logit / params.repetition_penalty if logit > 0 else logit * params.repetition_penalty
        if token in output:
            logit -= params.presence_penalty
        logit -= params.frequency_penalty * output.count(token)
        result.append(logit + bias.get(token, 0.0))
    return result


def chi_square_p_value(counts: Mapping[Outcome, int], distribution: Mapping[Outcome, float]) -> float:
    """How likely a deviation as large as this is by chance; 0 if something impossible was observed.

    Outcomes expected fewer than five times are pooled, as the approximation needs.
    """
    num_samples = sum(counts.values())
    if any(distribution.get(outcome, 0.0) == 0.0 for outcome, count in counts.items() if count):
        return 0.0
    observed, expected, pooled_observed, pooled_expected = [], [], 0.0, 0.0
    for outcome, probability in distribution.items():
        if probability * num_samples >= 5.0:
            observed.append(float(counts.get(outcome, 0)))
            expected.append(probability * num_samples)
        else:
            pooled_observed += counts.get(outcome, 0)
            pooled_expected += probability * num_samples
    if pooled_expected >= 5.0:
        observed.append(pooled_observed)
        expected.append(pooled_expected)
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in zip(observed, expected, strict=True))
    return float(stats.chi2.sf(statistic, max(len(observed) - 1, 1)))
