"""Where the keys of a text are cut, to be attended to side by side.

A row's result must not depend on what else a step holds, so cuts depend on nothing but the positions of the keys. Those
of a window are cut evenly. Without one, a text that grows has splits that grow: the first `even_keys` are cut evenly,
then each doubling of the text into half as many splits as that, so that merging costs little beside reading.

    size 128, even_keys 4096:  0, 128, ..., 4096, 4352, ..., 8192, 8704, ..., 16384, 17408, ...
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """How keys are cut, by their positions."""

    size: int  # keys of the first splits
    even_keys: int  # that are cut evenly, an even number of splits; those beyond only if there are octaves
    num_octaves: int  # doublings of the text that are cut into larger splits

    def number(self, position: int) -> int:
        """The number of the split that a key is in."""
        octave = self._octave(position // self.even_keys)
        if octave < 0:
            return position // self.size
        first = (2 + octave) * (self.even_keys // self.size // 2)
        return first + (position - (self.even_keys << octave)) // (2 * self.size << octave)

    def most(self, num_keys: int, window: int) -> int:
        """Splits that `window` neighbours among the first `num_keys` keys can be in."""
        if num_keys <= window or self.num_octaves:
            return self.number(num_keys - 1) + 1
        return (window - 2) // self.size + 2  # they may begin and end in the middle of one

    def _octave(self, doublings: int) -> int:
        return min(doublings.bit_length(), self.num_octaves) - 1


WINDOWED = Cut(size=128, even_keys=256, num_octaves=0)
GROWING = Cut(size=128, even_keys=4096, num_octaves=8)
