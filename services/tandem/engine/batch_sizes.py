"""How many sequences a captured round is made for."""

from collections.abc import Sequence

_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def batch_sizes(most: int) -> Sequence[int]:
    """Sizes to capture, so that any batch of up to `most` sequences has one that is little larger."""
    return [*(size for size in _SIZES if size < most), most]


def batch_size(count: int, most: int) -> int:
    """The smallest of them that holds `count` sequences."""
    return next(size for size in batch_sizes(most) if size >= count)
