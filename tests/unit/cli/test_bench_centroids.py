from dataclasses import replace

import pytest

from tandem.cli.bench.centroids import DENSE, section
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.stream import Arrival, Stream

FEW = "32 of 256 clusters"
CONFIG = BenchConfig(num_speculative_tokens=4)


def text(accepted, seconds_a_round):
    """A first token, then rounds of four drafts each."""
    arrivals, at = [Arrival(1.0, 1)], 1.0
    for count in accepted:
        at += seconds_a_round
        arrivals.append(Arrival(at, count + 1, 4, count))
    return Stream(0.5, tuple(range(1 + sum(accepted) + len(accepted))), tuple(arrivals))


def test_figures_of_each_head_and_their_ratios():
    dense = [text((3, 1), 0.012), text((3, 1), 0.012)]
    few = [text((2, 2), 0.009), text((1, 2, 0), 0.006)]
    found = section({FEW: few, DENSE: dense}, CONFIG)
    assert found.samples["acceptance_length " + DENSE] == [3.0]
    assert found.samples["acceptance_length " + FEW] == [2.4]
    assert found.samples["ms_per_round " + FEW] == pytest.approx([9.0, 6.0])
    assert [round(goal.value, 3) for goal in found.goals] == [0.8, 0.625]
    assert [line[:20].strip() for line in found.lines[2:]] == [DENSE, FEW]
    assert found.lines[-1].split()[-2:] == ["2.40", "7.50"]


def test_a_head_that_changes_a_text_is_a_failure():
    one = text((3, 1), 0.01)
    other = replace(one, token_ids=(*one.token_ids[:-1], 99))
    with pytest.raises(MeasurementFailed, match="changed a text"):
        section({DENSE: [one], FEW: [other]}, CONFIG)
