"""The arithmetic of `tandem bench`, on streams made by hand."""

import pytest

from tandem.cli.bench.acceptance import acceptance
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.latency import FirstToken, percentile
from tandem.cli.bench.stream import Arrival, Sample, Stream
from tandem.cli.bench.throughput import How, Measured, Throughput, count_equal_texts, count_together, throughput


def stream(*arrivals, started_at=0.0):
    """A text of which `arrivals` are (at, tokens) or (at, tokens, drafts, accepted)."""
    arrivals = tuple(Arrival(*arrival) for arrival in arrivals)
    return Stream(started_at, tuple(range(sum(arrival.num_tokens for arrival in arrivals))), arrivals)


def rounds(*accepted, drafts=4):
    """A text whose rounds judged so many drafts and accepted these."""
    return stream((0.5, 1), *((1.0 + i, count + 1, drafts, count) for i, count in enumerate(accepted)))


def test_one_stream():
    figures = throughput([[stream((1.5, 1), (2.0, 4), (2.5, 3), started_at=1.0)]])
    assert figures == Throughput(
        tokens_per_second=8 / 1.5, decode_tokens_per_second=7.0, ms_per_round=500.0, tokens_per_round=3.5
    )


def test_streams_after_each_other_add_up():
    first = stream((1.0, 1), (2.0, 1), started_at=0.0)
    second = stream((11.0, 1), (13.0, 1), started_at=10.0)  # what lies between them is nobody's time
    figures = throughput([[first], [second]])
    assert figures.tokens_per_second == 4 / 5
    assert figures.decode_tokens_per_second == 2 / 3
    assert figures.ms_per_round == 1500.0


def test_a_batch_counts_while_all_of_it_are_written():
    first = stream((1.0, 1), (3.0, 5), (4.0, 2))
    second = stream((2.0, 1), (5.0, 3), (9.0, 7))
    assert count_together([first, second]) == (5 + 2, 2), "from the second one's first token to the first one's end"
    assert count_together([first]) == (7, 3)
    with pytest.raises(MeasurementFailed):
        count_together([first, stream((4.5, 1), (5.0, 3))])


def test_streams_together_share_the_time():
    first = stream((1.0, 1), (3.0, 5), started_at=0.0)
    second = stream((2.0, 1), (4.0, 5), started_at=0.0)
    figures = throughput([[first, second]])
    assert figures.tokens_per_second == 12 / 4
    assert figures.decode_tokens_per_second == 10 / 3, "from the first token of any to the last of all"
    assert figures.ms_per_round == 2000.0


def test_medians_are_of_each_figure_by_itself():
    runs = (Throughput(1, 30, 5, 2), Throughput(3, 10, 4, 2), Throughput(2, 20, 9, 2))
    assert Measured(How.SPLIT, 1, runs, ()).medians == Throughput(2, 20, 5, 2)


def test_a_sample_keeps_the_raw_figures():
    assert stream((1.5, 1), (2.0, 4), started_at=1.0).sample == Sample(5, 1, 0.5, 1.0)


def test_equal_texts_are_counted_against_the_drafted_run():
    texts = {How.SPLIT: [(1, 2), (3, 4)], How.PLAIN: [(1, 2), (3, 4)], How.ASSISTED: [(1, 2), (3, 5)]}
    assert count_equal_texts(texts) == {How.PLAIN: 2, How.ASSISTED: 1}


def test_acceptance_length_counts_the_targets_own_token():
    found = acceptance([rounds(4, 0), rounds(2)], 0.0, k=4, max_tokens=100)
    assert found.length == 1 + 6 / 3
    assert found.prompt_lengths == (3.0, 3.0) and found.num_rounds == 3


def test_long_prompts_do_not_hide_hard_ones():
    found = acceptance([rounds(0, 0, 0), rounds(4), rounds(2)], 0.0, k=4, max_tokens=100)
    assert found.prompt_lengths == (1.0, 5.0, 3.0)
    assert found.length == 1 + 6 / 5, "every round counts once"
    assert (found.mean_prompt_length, found.median_prompt_length, found.min_prompt_length) == (3.0, 3.0, 1.0)


def test_acceptance_by_position_is_of_rounds_that_judged_it():
    cut_short = stream((0.5, 1), (1.0, 2, 1, 1))  # one draft was all that fitted
    found = acceptance([rounds(4, 1), cut_short], 0.0, k=4, max_tokens=100)
    assert found.accepted_shares == (1.0, 0.5, 0.5, 0.5)


def test_a_position_that_was_never_drafted_has_share_0():
    assert acceptance([rounds(1, drafts=1)], 0.0, k=2, max_tokens=100).accepted_shares == (1.0, 0.0)


def test_rounds_whose_drafts_did_not_come_are_counted():
    late = stream((0.5, 1), (1.0, 1, 0, 0), (1.5, 3, 4, 2))
    assert acceptance([late], 0.0, k=4, max_tokens=100).num_undrafted_rounds == 1


def test_a_last_round_needs_no_drafts():
    ended = stream((0.5, 1), (1.0, 3, 2, 2), (1.5, 1, 0, 0))
    assert acceptance([ended], 0.0, k=4, max_tokens=5).num_undrafted_rounds == 0


def test_texts_of_one_token_have_no_acceptance():
    assert acceptance([stream((0.5, 1))], 0.0, k=4, max_tokens=1) is None
    assert acceptance([], 0.0, k=4, max_tokens=1) is None
    found = acceptance([stream((0.5, 1)), rounds(3)], 0.0, k=4, max_tokens=9)
    assert found.prompt_lengths == (4.0,) and found.num_short_texts == 1


def test_the_gateways_cost_is_between_medians():
    assert FirstToken((1.0, 2.0, 99.0), (4.0, 5.0, 6.0)).gateway_adds_ms == 3.0


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 3), (80, 4), (81, 5), (95, 5), (100, 5)])
def test_percentile_is_the_nearest_rank(percent, expected):
    assert percentile([5, 3, 1, 2, 4], percent) == expected
