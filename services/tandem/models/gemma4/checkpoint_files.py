"""The safetensors files of a checkpoint folder."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tandem.core.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_NUM_SAMPLES = 16  # of a file's content in its revision
_SAMPLE_BYTES = 1 << 16
_REVISION_LENGTH = 12  # hexadecimal digits


class CheckpointFiles:
    """Tensors by name, over one file or several with an index. Nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        """Opens every file.

        Raises:
            CheckpointError: a file is absent, damaged, or not what the index says.
        """
        self._files: dict[str, Any] = {}  # by file name
        self._file_names: dict[str, str] = {}  # by tensor name
        for name in weight_files(path):
            try:
                file: Any = safe_open(str(path / name), framework="pt", device="cpu")
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path / name}: cannot be read: {error}") from None
            self._files[name] = file
            for tensor_name in file.keys():
                if tensor_name in self._file_names:
                    raise CheckpointError(f"{path / name}: {tensor_name} is also in {self._file_names[tensor_name]}")
                self._file_names[tensor_name] = name
        self._path = path

    def names(self) -> Iterable[str]:
        """Every tensor's name."""
        return self._file_names.keys()

    def source(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._path / self._file_names[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from the file's header."""
        return tuple(self._files[self._file_names[name]].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU, in the dtype of the file."""
        tensor = self._files[self._file_names[name]].get_tensor(name)
        assert isinstance(tensor, torch.Tensor)
        return tensor


def weight_files(path: Path) -> list[str]:
    """Names of the folder's weight files, in order.

    Raises:
        CheckpointError: there are none, or the index is damaged.
    """
    if (path / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    index = path / INDEX_FILE
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: has neither {SINGLE_FILE} nor {INDEX_FILE}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: must hold a weight_map from tensors to files") from None
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise CheckpointError(f"{index}: must name files of its own folder")
    return sorted(names)


def revision(path: str | Path) -> str:
    """A short name of what a checkpoint folder holds: equal for equal content, and cheap for a large one.

    Hashes config.json and, of each weight file, its size, its beginning with the header, and samples of its content.

    Raises:
        CheckpointError: a file is absent or cannot be read.
    """
    folder = Path(path)
    digest = hashlib.sha256()
    try:
        digest.update((folder / "config.json").read_bytes())
        for name in weight_files(folder):
            with (folder / name).open("rb") as file:
                size = file.seek(0, 2)
                digest.update(f"{name} {size} ".encode())
                for sample in range(_NUM_SAMPLES):
                    file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_NUM_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from None
    return digest.hexdigest()[:_REVISION_LENGTH]
