"""Into how large splits the keys of a text are cut, to be attended to side by side.

A row's result must not depend on what else a step holds, so splits begin at multiples of their size, counted from
position 0, and their size depends on the row's own position alone. Keys of a window are cut evenly. Without one, long
texts have splits so large that at most 64 are merged; that many keep a GPU busy with one text of few KV heads.
"""

from dataclasses import dataclass

_BEYOND = 1 << 30  # any position


@dataclass(frozen=True)
class SplitSizes:
    """Keys of a split, by the position of the row from which on it holds."""

    sizes: tuple[tuple[int, int], ...]  # (position, size), rising; the first position is 0

    def at(self, position: int) -> tuple[int, int]:
        """The size for a row at a position, and the position from which on that changes."""
        index = max(index for index, (first, _) in enumerate(self.sizes) if first <= position)
        until = self.sizes[index + 1][0] if index + 1 < len(self.sizes) else _BEYOND
        return self.sizes[index][1], until

    def most_splits(self, max_position: int, window: int, num_rows: int) -> int:
        """Of any `num_rows` neighbours that stand at `max_position` or before, and see `window` keys each."""
        most = 0
        for first, size in self.sizes:
            if first <= max_position:
                until = min(self.at(first)[1] - 1, max_position)
                num_keys = min(until + 1, window + num_rows - 1)
                # Keys that do not begin at 0 may begin and end in the middle of a split.
                most = max(most, (num_keys - 2) // size + 2 if window <= until else -(-num_keys // size))
        return most


WINDOWED = SplitSizes(((0, 128),))
GROWING = SplitSizes(((0, 128), (8192, 256), (16384, 512), (32768, 1024), (65536, 2048), (131072, 4096)))
