"""What the policy loses against the best fixed number of drafts, where rounds take what they took on two CPU cores.

Calibration knows these times only roughly: it has shorter texts, and no drafter that empties the caches in between.
"""

import random

import pytest

from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.draft_policy import RoundReport, StepTaken
from tests.unit.engine.test_adaptive_drafts import Always
from tests.unit.engine.world import World

# Milliseconds with 0, 1, 2, ... 6 drafts for each of so many sequences; medians of a run of `tandem bench`.
STEPS = {
    1: (9.4, 12.0, 13.3, 14.2, 15.1, 15.4, 15.6),
    4: (14.4, 20.0, 21.5, 22.4, 23.3, 25.2, 27.2),
    16: (26.2, 30.6, 35.1, 40.5, 45.8, 51.0, 56.2),
}
DRAFTINGS = {
    1: (0.0, 3.1, 4.5, 5.7, 6.9, 8.0, 9.2),
    4: (0.0, 5.0, 6.8, 8.2, 9.7, 11.7, 13.8),
    16: (0.0, 6.9, 10.4, 13.8, 17.1, 21.3, 25.5),
}
K = 6
NUM_ROUNDS = {1: 3000, 4: 1500, 16: 750}


def between(table, place):
    """The table at a place between two of its entries."""
    low = min(int(place), len(table) - 2)
    return table[low] + (place - low) * (table[low + 1] - table[low])


def world(batch, chance, seed):
    return World(
        lambda sequences, rows: between(STEPS[sequences], rows / sequences - 1),
        lambda _, sequences, drafts: DRAFTINGS[batch][drafts],
        lambda *_: chance,
        batch,
        K,
        noise=0.08,
        seed=seed,
    )


def calibrated(error, seed):
    """Told of steps whose times are wrong by up to such a share, each size by its own."""
    policy, rng = AdaptiveDrafts(1, max_rows=512), random.Random(seed)
    for batch, steps in STEPS.items():
        for count in (0, 1, 3, 6):
            seconds = steps[count] / 1000 * (1 + rng.uniform(-error, error))
            for _ in range(3):
                policy.learn(RoundReport(step=StepTaken(batch, batch * (1 + count), seconds, is_rehearsal=True)))
    return policy


@pytest.mark.parametrize("error", [0.0, 0.3])
@pytest.mark.parametrize("chance", [0.5, 0.72, 0.85])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_it_loses_little_however_wrong_the_calibration(batch, chance, error):
    ratios = []
    for seed in range(3):
        best = max(world(batch, chance, seed).run(Always(k), NUM_ROUNDS[batch]).rate for k in range(K + 1))
        ratios.append(world(batch, chance, seed).run(calibrated(error, seed), NUM_ROUNDS[batch]).rate / best)
    assert sum(ratios) / len(ratios) > 0.97
