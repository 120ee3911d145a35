import pytest

from tandem.engine.acceptance import Acceptance

EXPECTED = [0.8, 0.6, 0.5]


def test_without_evidence_a_sequence_is_its_drafters_average():
    assert Acceptance(30).chances(EXPECTED, 4, 7) == EXPECTED


def test_a_position_is_judged_only_where_all_before_it_were_right():
    acceptance = Acceptance(1e9)
    acceptance.record(0, True, 1)
    acceptance.record(2, True, 1)
    acceptance.record(2, False, 1)  # what came after is not known
    assert acceptance.chances(EXPECTED, 0, 1) == pytest.approx([2 / 3, 1.0, 0.0], abs=1e-6)
    assert acceptance.chances(EXPECTED, 1, 1) == pytest.approx([2.8 / 4, 2.6 / 3, 0.5 / 2], abs=1e-6)


def test_evidence_fades_in_rounds_towards_what_was_expected():
    acceptance = Acceptance(30)
    for round_number in range(200):
        acceptance.record(0, True, round_number)
    soon, later, late = (acceptance.chances(EXPECTED, 4, 200 + rounds)[0] for rounds in (0, 60, 300))
    assert soon < 0.15 < later < 0.6 < late < 0.8
    acceptance.record(3, False, 500)
    assert acceptance.chances(EXPECTED, 4, 500)[0] > 0.8, "the past weighs less than one round now"
