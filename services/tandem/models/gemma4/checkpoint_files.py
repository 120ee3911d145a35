"""The tensors of a checkpoint folder, over one safetensors file or several with an index.

Files are mapped, not read into memory, and one at a time. A tensor comes in pieces of bounded size: whatever is made of
a piece on its way to the device, a cast for one, is never as large as the weights.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tandem.core.errors import CheckpointError
from tandem.models.weight_files import INDEX_FILE, read_index, weight_files

PIECE_BYTES = 64 << 20
_WIDEST_ITEM_BYTES = 8


@dataclass(frozen=True)
class _Entry:
    file: str
    shape: tuple[int, ...]


class CheckpointFiles:
    """Tensors by name. Headers are read at once, content when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Reads the header of every file.

        Raises:
            CheckpointError: a file is absent, damaged, or not what the index says.
        """
        self._path = path
        self._entries: dict[str, _Entry] = {}
        for name in weight_files(path):
            with self._open(name) as file:
                for tensor_name in file.keys():
                    if tensor_name in self._entries:
                        other = self._entries[tensor_name].file
                        raise CheckpointError(f"{path / name}: {tensor_name} is also in {other}")
                    self._entries[tensor_name] = _Entry(name, tuple(file.get_slice(tensor_name).get_shape()))
        self._check_index()

    def names(self) -> Collection[str]:
        """Every tensor's name."""
        return self._entries.keys()

    def source(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._path / self._entries[name].file

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from the file's header."""
        return self._entries[name].shape

    def read(
        self, names: Iterable[str], rows: Mapping[str, range] | None = None
    ) -> Iterator[tuple[str, int, torch.Tensor]]:
        """The tensors of these names, file after file, in the dtype of the file.

        Args:
            names: which.
            rows: of tensors that it names, the rows to read; of the others all are read.

        Yields:
            A tensor's name; the first row of a piece; the piece, [rows, ...] on the CPU. It is a view of the file, to
            be copied: as long as it is kept, the file stays mapped. A small tensor is one piece.
        """
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self._entries[name].file, []).append(name)
        for file_name, file_names in by_file.items():
            with self._open(file_name) as file:
                for name in file_names:
                    shape = self._entries[name].shape
                    for start, stop in _pieces(shape, (rows or {}).get(name, range(shape[0]))):
                        yield name, start, file.get_slice(name)[start:stop]

    def _open(self, name: str) -> Any:
        try:
            return safe_open(str(self._path / name), framework="pt", device="cpu")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self._path / name}: cannot be read: {error}") from None

    def _check_index(self) -> None:
        index = read_index(self._path)
        if index is None:
            return
        for name in sorted(index.keys() | self._entries.keys()):
            entry = self._entries.get(name)
            if entry is None or entry.file != index.get(name):
                says, found = index.get(name, "no file"), entry.file if entry else "no file"
                raise CheckpointError(f"{self._path / INDEX_FILE}: {name} is in {found}, not in {says}")


def _pieces(shape: tuple[int, ...], rows: range) -> Iterator[tuple[int, int]]:
    """First row and end of each piece of a tensor's rows."""
    num_rows = max(1, PIECE_BYTES // (_WIDEST_ITEM_BYTES * max(1, prod(shape[1:]))))
    for start in range(rows.start, rows.stop, num_rows):
        yield start, min(start + num_rows, rows.stop)
