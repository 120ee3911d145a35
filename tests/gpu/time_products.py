"""Times skinny products of 31B and its drafter against the bytes they must read: `python -m tests.gpu.time_products`.

Each line is a matrix, in TB/s of its weights: torch's product and ours, for several numbers of rows, in a captured
graph over weights that take turns, so that none is still in the cache. Then, in milliseconds, all products of one step
of 31B in their order: alone, and with a small kernel before each, as the norms and activations of a step are.
"""

import sys
from collections.abc import Callable, Iterator

import torch

from tandem.models.gemma4.linear import Linear
from tests.gpu.captured import milliseconds

DEVICE = torch.device("cuda")
ROWS = (1, 8, 64, 256)
POOL_SIZE = 3 << 30  # weights
MIN_WEIGHTS = 1 << 29  # of one measurement
SLIDING = ((5376, 16384), (8192, 5376), (5376, 43008), (21504, 5376))  # in_features, out_features of a layer
FULL = ((5376, 18432), (16384, 5376), (5376, 43008), (21504, 5376))
HEAD = (5376, 262144)
STEP = ((SLIDING * 5 + FULL) * 10, HEAD)
DRAFTER = (
    (10752, 1024),
    (1024, 8192),
    (1024, 16384),
    (8192, 1024),
    (16384, 1024),
    (1024, 5376),
    (1024, 262144),
)

Product = Callable[[torch.Tensor], torch.Tensor]


class Pool:
    """Random weights, of which every matrix takes the next."""

    def __init__(self) -> None:
        self._weights = torch.empty(POOL_SIZE, dtype=torch.bfloat16, device=DEVICE)
        for part in self._weights.split(1 << 28):
            part.normal_(std=0.02)
        self._start = 0

    def matrix(self, in_features: int, out_features: int) -> torch.Tensor:  # -> [in_features, out_features]
        if self._start + in_features * out_features > POOL_SIZE:
            self._start = 0
        start, self._start = self._start, self._start + in_features * out_features
        return self._weights[start : self._start].view(out_features, in_features).t()

    def read_speed(self) -> float:
        """Bytes a millisecond of a sum over all of it."""
        return self._weights.nbytes / milliseconds(self._weights.sum)


def both(matrix: torch.Tensor) -> tuple[Product, Product]:  # [in_features, out_features]
    """torch's product and ours."""
    return lambda rows: torch.mm(rows, matrix), Linear.of(matrix)


def random_rows(count: int, in_features: int) -> torch.Tensor:  # -> [count, in_features]
    return torch.randn(count, in_features, dtype=torch.bfloat16, device=DEVICE)


def speeds(pool: Pool, in_features: int, out_features: int) -> Iterator[tuple[float, ...]]:
    """TB/s for each number of rows: torch's and ours."""
    size = in_features * out_features
    products = [both(pool.matrix(in_features, out_features)) for _ in range(max(2, MIN_WEIGHTS // size))]
    for count in ROWS:
        rows = random_rows(count, in_features)
        times = [milliseconds(lambda rows=rows, ours=ours: [pair[ours](rows) for pair in products]) for ours in (0, 1)]
        yield tuple(len(products) * size * 2 / time / 1e9 for time in times)


def step_time(pool: Pool, num_rows: int, ours: bool, with_small_kernels: bool) -> float:
    """Milliseconds of the products of a step of 31B."""
    rows = {count: random_rows(num_rows, count) for count in {shape[0] for shape in (*SLIDING, *FULL)}}
    products = [(rows[shape[0]], both(pool.matrix(*shape))[ours]) for shape in (*STEP[0], STEP[1])]

    def work() -> None:
        for inputs, product in products:
            product(inputs.neg() if with_small_kernels else inputs)

    return milliseconds(work)


def main() -> int:
    """Prints the table."""
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 1
    pool = Pool()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, reads {pool.read_speed() / 1e9:.2f} TB/s")
    print(f"{'TB/s, torch and ours':<22}" + "".join(f"{count:>9} rows " for count in ROWS))
    for shape in (*dict.fromkeys((*SLIDING, *FULL, HEAD)), *DRAFTER):
        cells = [f"{theirs:>8.2f}{ours:>7.2f}" for theirs, ours in speeds(pool, *shape)]
        print(f"{shape[0]:>8} -> {shape[1]:<10}" + "".join(cells))
    for with_small_kernels in (False, True):
        print("one step, ms" + (" with small kernels" if with_small_kernels else ""))
        for count in ROWS:
            times = [step_time(pool, count, ours, with_small_kernels) for ours in (False, True)]
            print(f"{count:>5} rows: torch {times[0]:.2f}, ours {times[1]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
