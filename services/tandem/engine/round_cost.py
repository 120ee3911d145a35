"""How long a part of a round takes, learnt from rounds.

    seconds(x, y) = pace * line(x, y) * correction(x, y)

line        a + b x + c y, none of them negative, through all that was measured; says something of what never was
correction  what was measured at such sizes over the line there, interpolated in y
pace        how fast the machine is just now: longer texts and busy neighbours slow all sizes alike, and a size that has
            not been measured for long must not look cheap for it
"""

from bisect import bisect_left
from dataclasses import dataclass
from math import log2

TRUST = 5.0  # measurements of a size that weigh as much as the line: a few may all be of a bad moment
YOUNG = 8  # measurements of a size after which it tells of the machine's pace
MEMORY = 20  # measurements
PACE_RATE = 0.1
SHORTEST = 1e-9  # seconds
OUTLIER = 1.5  # times what was expected: a pause of the process, not the price of the size
FITS_EVERY = 32  # measurements, the line
CORRECTS_EVERY = 8  # measurements, what was measured over the line
SWEEPS = 30
RIDGE = 1e-3  # of a measurement, for the line as it was


@dataclass
class _Size:
    """What was measured about one size; sizes that are close share one."""

    x: float
    y: float
    seconds: float
    count: int  # 0: only guessed

    @property
    def weight(self) -> int:
        return max(1, self.count)

    def add(self, x: int, y: int, seconds: float) -> None:
        if self.count:
            seconds = min(seconds, OUTLIER * self.seconds)
        self.count += 1
        rate = 1 / min(self.count, MEMORY)
        self.x += rate * (x - self.x)
        self.y += rate * (y - self.y)
        self.seconds += rate * (seconds - self.seconds)


class Durations:
    """Durations of one kind of work by two sizes of it."""

    def __init__(self, line: tuple[float, float, float]) -> None:
        """Has measured nothing.

        Args:
            line: a, b and c, seconds, for as long as measurements do not say otherwise.
        """
        self._line = line
        self._sizes: dict[int, dict[int, _Size]] = {}
        self._count = 0
        self._pace = 1.0
        self._last = (0, 0)  # size
        self._corrections: dict[int, tuple[list[float], list[float]]] = {}  # by bucket of x: y, and the factor there
        self._known: dict[tuple[int, int], float] = {}  # without the pace

    def record(self, x: int, y: int, seconds: float, is_guess: bool = False) -> None:
        """Takes in a measurement.

        Args:
            x: at least 1.
            y: at least 1.
            seconds: that it took.
            is_guess: measured under other circumstances: the first measurement of such a size takes its place.
        """
        seconds = max(seconds, SHORTEST)
        place, y_place = size_class(x), _bucket(y, 4)
        sizes = self._sizes.setdefault(place, {})
        size = sizes.get(y_place)
        before, self._last = self._last, (place, y_place)
        if size and size.count and self._last != before:
            return  # work of another size than before takes longer than more of the same
        if size is None:
            if self._count >= YOUNG:
                seconds = min(seconds, OUTLIER * self.seconds(x, y))
            sizes[y_place] = _Size(x, y, seconds / self._pace, 0 if is_guess else 1)
        elif is_guess:
            size.seconds = size.seconds if size.count else (size.seconds + seconds / self._pace) / 2
        else:
            if size.count >= YOUNG:
                ratio = seconds / size.seconds
                self._pace += PACE_RATE * (min(ratio, OUTLIER * self._pace) - self._pace)
            size.add(x, y, seconds / self._pace)
        self._count += 1
        if size is None or size.count < YOUNG or self._count % FITS_EVERY == 0:
            self._line = _fit_line([one for of_x in self._sizes.values() for one in of_x.values()], self._line)
            for bucket in self._sizes:
                self._correct(bucket)
        elif self._count % CORRECTS_EVERY == 0:
            self._correct(place)

    def seconds(self, x: int, y: int) -> float:
        """What so much work takes."""
        return self._pace * self._base(x, y)

    def _base(self, x: int, y: int) -> float:
        found = self._known.get((x, y))
        if found is None:
            a, b, c = self._line
            found = self._known[x, y] = (a + b * x + c * y) * self._correction(x, y)
        return found

    def _correction(self, x: int, y: int) -> float:
        ys, factors = self._corrections.get(size_class(x), ((), ()))
        if not ys:
            return 1.0
        place = bisect_left(ys, y)
        if place in (0, len(ys)):
            return factors[min(place, len(ys) - 1)]
        share = (y - ys[place - 1]) / (ys[place] - ys[place - 1])
        return factors[place - 1] + share * (factors[place] - factors[place - 1])

    def _correct(self, bucket: int) -> None:
        self._known.clear()
        a, b, c = self._line
        ordered = sorted(self._sizes[bucket].values(), key=lambda size: size.y)
        self._corrections[bucket] = (
            [size.y for size in ordered],
            [
                1 + (seconds / (a + b * size.x + c * size.y) - 1) * size.weight / (size.weight + TRUST)
                for seconds, size in zip(_rising(ordered), ordered, strict=True)
            ],
        )


def _rising(sizes: list[_Size]) -> list[float]:
    """The seconds of each, none below those before it, so that no noise makes work look cheaper than none.

    The closest such numbers (pool adjacent violators: Ayer et al., "An empirical distribution function for sampling
    with incomplete information", 1955).
    """
    pools: list[tuple[float, int, int]] = []  # seconds, measurements, sizes
    for size in sizes:
        seconds, weight, number = size.seconds, min(size.weight, MEMORY), 1
        while pools and pools[-1][0] > seconds:
            before, weight_before, number_before = pools.pop()
            seconds = (weight_before * before + weight * seconds) / (weight_before + weight)
            weight, number = weight_before + weight, number_before + number
        pools.append((seconds, weight, number))
    return [seconds for seconds, _, number in pools for _ in range(number)]


def size_class(num_sequences: int) -> int:
    """Numbers of sequences that are close share one."""
    return _bucket(num_sequences, 2)


def _bucket(size: int, per_doubling: int) -> int:
    return round(per_doubling * log2(size))


def _fit_line(sizes: list[_Size], line: tuple[float, float, float]) -> tuple[float, float, float]:
    """Least squares of relative errors with no negative coefficient, by coordinate descent from the line as it was."""
    scale = sum(size.seconds / (line[0] + line[1] * size.x + line[2] * size.y) for size in sizes) / len(sizes)
    before = [scale * value for value in line]
    normal = [[0.0] * 3 for _ in range(3)]
    right = [0.0] * 3
    for size in sizes:
        weight = min(size.weight, YOUNG)
        features = (1 / size.seconds, size.x / size.seconds, size.y / size.seconds)
        for i in range(3):
            right[i] += weight * features[i]
            for j in range(3):
                normal[i][j] += weight * features[i] * features[j]
    found = list(before)
    for i in range(3):
        pull = RIDGE * normal[i][i] / len(sizes)
        normal[i][i] += pull
        right[i] += pull * before[i]
    for _ in range(SWEEPS):
        for i in range(3):
            rest = sum(normal[i][j] * found[j] for j in range(3) if j != i)
            found[i] = max(0.0, (right[i] - rest) / normal[i][i])
    return found[0], found[1], found[2]
