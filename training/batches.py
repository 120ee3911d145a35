"""Rows of tokens for training, drawn without repetition inside an epoch."""

import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy
import torch
from torch import Tensor


def load_training(folder: Path) -> Tensor:
    """Read the training tokens: one flat int16 tensor on the host."""
    return _tensor(numpy.frombuffer(lzma.decompress((folder / "train.xz").read_bytes()), dtype=numpy.uint16))


def load_held_out(folder: Path) -> Tensor:
    """Read the held-out tokens: one flat int16 tensor on the host."""
    return _tensor(numpy.load(folder / "held_out.npy"))


def store(folder: Path, train: numpy.ndarray, held_out: numpy.ndarray) -> None:
    """Write the token archive that `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.xz").write_bytes(lzma.compress(train.astype(numpy.uint16).tobytes(), preset=5))
    numpy.save(folder / "held_out.npy", held_out)


def rows(tokens: Tensor, count: int, length: int, seed: int) -> Iterator[Tensor]:
    """Endless batches [count, length] of consecutive tokens (int64); every epoch cuts the text at other places."""
    generator = torch.Generator().manual_seed(seed)
    span = torch.arange(length, device=tokens.device)
    while True:
        phase = int(torch.randint(length, (1,), generator=generator))
        starts = torch.arange(phase, len(tokens) - length, length)
        starts = starts[torch.randperm(len(starts), generator=generator)].to(tokens.device)
        if len(starts) < count:
            starts = starts.repeat(-(-count // max(1, len(starts))))
        for first in range(0, len(starts) - count + 1, count):
            yield tokens[starts[first : first + count, None] + span].long()


def _tensor(ids: numpy.ndarray) -> Tensor:
    """Ids stay below 4,096, so the signed type that torch indexes with holds them."""
    return torch.from_numpy(ids.astype(numpy.int16))
