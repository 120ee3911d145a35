import random

import pytest

from tandem.engine.round_cost import Durations


def measured(seconds, sizes, turns=5):
    durations = Durations((0.01, 0.0, 0.0))
    for _ in range(turns):
        for x, y in sizes:
            durations.record(x, y, seconds(x, y))
            durations.record(x, y, seconds(x, y))  # the first one after a change does not count
    return durations


def test_before_anything_was_measured_the_guess_holds_and_then_its_shape():
    durations = Durations((0.0, 2.0, 0.0))
    assert durations.seconds(3, 30) == 6.0
    durations.record(4, 4, 2.0)
    assert durations.seconds(2, 2) == pytest.approx(1.0, rel=0.01)


def test_sizes_that_were_never_measured_lie_on_the_line():
    def line(x, y):
        return 5.0 + 0.2 * x + 0.5 * y

    durations = measured(line, [(1, 1), (1, 5), (4, 4), (4, 12), (16, 16), (16, 80)], turns=40)
    for size in ((1, 3), (2, 6), (8, 24), (16, 40)):
        assert durations.seconds(*size) == pytest.approx(line(*size), rel=0.1)


def test_what_was_measured_counts_more_than_the_line():
    def tiles(x, y):
        return 10.0 if y <= 4 else 20.0

    durations = measured(tiles, [(1, y) for y in range(1, 9)], turns=20)
    assert [durations.seconds(1, y) for y in (2, 4, 5, 8)] == pytest.approx([10, 10, 20, 20], rel=0.1)


def test_more_rows_never_look_cheaper():
    rng = random.Random(0)
    durations = measured(lambda x, y: 10.0 * rng.uniform(0.8, 1.2), [(1, y) for y in range(1, 9)])
    known = [durations.seconds(1, y) for y in range(1, 9)]
    assert all(more >= less * 0.999 for less, more in zip(known, known[1:], strict=False))


def test_one_pause_changes_little():
    durations = measured(lambda x, y: 10.0 + y, [(1, y) for y in range(1, 6)], turns=20)
    before = durations.seconds(1, 5)
    durations.record(1, 5, 1000.0)
    assert durations.seconds(1, 5) > before
    durations.record(1, 7, 1000.0)
    assert durations.seconds(1, 5) < 1.2 * before
    assert durations.seconds(1, 7) < 2 * before


def test_a_machine_that_becomes_slow_slows_what_is_not_measured_now():
    durations = measured(lambda x, y: 10.0 + y, [(1, y) for y in range(1, 6)], turns=20)
    before = durations.seconds(1, 1)
    for _ in range(60):
        durations.record(1, 5, 30.0)
    assert durations.seconds(1, 5) == pytest.approx(30.0, rel=0.1)
    assert durations.seconds(1, 1) > 1.4 * before


def test_one_size_that_looks_dear_does_not_make_all_larger_ones_dear():
    durations = measured(lambda x, y: 10.0, [(1, y) for y in range(2, 8)], turns=20)
    durations.record(1, 1, 14.0)
    assert durations.seconds(1, 7) < 10.5


def test_the_first_work_of_another_size_tells_nothing_of_what_is_known():
    durations = measured(lambda x, y: 10.0, [(1, 2), (1, 6)], turns=20)
    for _ in range(20):
        durations.record(1, 2, 14.0)
        durations.record(1, 6, 14.0)
    assert durations.seconds(1, 2) == pytest.approx(10.0, rel=0.01)
    for _ in range(20):
        durations.record(1, 6, 14.0)
    assert durations.seconds(1, 6) == pytest.approx(14.0, rel=0.05)


def test_the_first_measurement_takes_the_place_of_a_guess():
    durations = Durations((1.0, 0.0, 0.0))
    for _ in range(3):
        for y in (1, 2, 4, 8):
            durations.record(1, y, 10.0 + y, is_guess=True)
    assert durations.seconds(1, 4) == pytest.approx(14.0, rel=0.1)
    for _ in range(8):
        durations.record(1, 4, 20.0)
    assert durations.seconds(1, 4) > 17.0, "eight measurements, none of which is thrown together with the guesses"
    durations.record(1, 4, 14.0, is_guess=True)
    for _ in range(40):
        durations.record(1, 4, 20.0)
    assert durations.seconds(1, 4) == pytest.approx(20.0, rel=0.02)
    assert durations.seconds(1, 1) < 1.5 * 11.0, "that guesses were low says nothing of the machine's pace"
