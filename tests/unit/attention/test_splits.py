"""How many splits there can be, against counting them."""

import pytest

from tandem.attention.splits import GROWING, WINDOWED

NO_WINDOW = 1 << 30


@pytest.mark.parametrize(("sizes", "window"), [(GROWING, NO_WINDOW), (WINDOWED, 1024), (WINDOWED, 200)])
@pytest.mark.parametrize("max_position", [5, 127, 128, 1030, 2047, 8191, 8200, 16_383, 33_000])
def test_the_most_splits_that_neighbours_can_see(sizes, window, max_position):
    num_rows = 8

    def count(start):
        size, until = sizes.at(start)
        last = min(start + num_rows - 1, until - 1, max_position)
        return last // size - max(0, start - window + 1) // size + 1

    most = max(count(start) for start in range(max_position + 1))
    assert most <= sizes.most_splits(max_position, window, num_rows) <= most + 1
