import pytest

from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.fp8 import WIDE, Written, section
from tandem.cli.bench.stream import Arrival, Stream

TEXTS = ((5, 6, 7, 8), (1, 2, 3, 4))


def written(texts, following, num_accepted):
    """A first token, then one round."""
    arrivals = Arrival(1.0, 1), Arrival(1.1, 3, 4, num_accepted)
    return Written(tuple(Stream(0.5, text, arrivals) for text in texts), texts, following)


def test_agreement_is_counted_after_the_other_text_and_parting_in_ones_own():
    """One text parts at its second token, and never meets the other again; each token by itself is mostly the same."""
    own = ((5, 9, 9, 9), TEXTS[1])
    found = section(
        {WIDE: written(TEXTS, TEXTS, 2), "narrow": written(own, ((5, 9, 7, 8), TEXTS[1]), 1)},
        4,
    )
    assert found.samples["same_tokens narrow"] == [0.75, 1.0]
    assert [(goal.name, goal.value) for goal in found.goals] == [("same greedy tokens: narrow", 87.5)]
    assert found.samples["acceptance_length narrow"] == [2.0, 2.0]
    assert found.lines[-2].split()[-6:] == ["3.00", "100.0%", "2", "of", "2", "none"]
    assert found.lines[-1].split()[-6:] == ["2.00", "87.5%", "1", "of", "2", "2.5"]


def test_a_text_that_depends_on_its_drafts_is_a_failure():
    drafted = written(TEXTS, TEXTS, 2)
    changed = Written(drafted.drafted, ((5, 6, 7, 9), TEXTS[1]), TEXTS)
    with pytest.raises(MeasurementFailed, match="narrow: a drafter changed a text"):
        section({WIDE: drafted, "narrow": changed}, 4)
