"""What adaptive K is compared with."""

import pytest

from tandem.cli.bench.adaptive_k import ADAPTIVE, against_best, groups, promising
from tandem.cli.bench.prompts import Prompt


def test_the_best_of_a_pass_is_chosen_by_the_other_passes() -> None:
    """K = 1 was lucky in the second pass: there it is not what adaptive K is compared with."""
    best, ratios = against_best([99.0] * 3, {"K = 1": [90.0, 130.0, 101.0], "K = 2": [100.0] * 3})
    assert best == "K = 1"
    assert ratios == pytest.approx([99 / 90, 99 / 100, 99 / 101])


def test_a_slower_policy_shows() -> None:
    """The ratio is to the best, not to the mean of all."""
    _, ratios = against_best([80.0] * 5, {"K = 0": [50.0] * 5, "K = 4": [100.0] * 5})
    assert ratios == pytest.approx([0.8] * 5)


def test_a_fixed_number_far_behind_is_not_tried_further() -> None:
    """Adaptive K stays, however slow."""
    rates = {"K = 0": 50.0, "K = 2": 95.0, "K = 4": 100.0, ADAPTIVE: 10.0}
    assert promising(rates) == ["K = 2", "K = 4", ADAPTIVE]


def test_groups_cover_all_prompts_as_far_as_they_go() -> None:
    """Neighbours are often of one kind, so a few groups must not come from one end."""
    prompts = [Prompt(str(number), (number,)) for number in range(40)]
    assert [group[0] for group in groups(prompts, 1, 4)] == prompts[::10]
    assert {prompt for group in groups(prompts, 4, 10) for prompt in group} == set(prompts)
    overlapping = groups(prompts, 16, 5)
    assert {len(set(group)) for group in overlapping} == {16}
    assert {prompt for group in overlapping for prompt in group} == set(prompts)
