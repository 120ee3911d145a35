"""Which files of a checkpoint folder hold its weights, without a look at any tensor."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tandem.core.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_NUM_SAMPLES = 16  # of a file's content in its revision
_SAMPLE_BYTES = 1 << 16
_REVISION_LENGTH = 12  # hexadecimal digits


def weight_files(folder: Path) -> list[str]:
    """Names of the folder's weight files, in order.

    Raises:
        CheckpointError: there are none, or the index is damaged.
    """
    index = read_index(folder)
    return [SINGLE_FILE] if index is None else sorted(set(index.values()))


def read_index(folder: Path) -> dict[str, str] | None:
    """The file of each tensor by the index's account; None where all are in one file.

    Raises:
        CheckpointError: there is neither file nor index, or the index is damaged.
    """
    if (folder / SINGLE_FILE).is_file():
        return None
    file = folder / INDEX_FILE
    try:
        weight_map: Any = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: has neither {SINGLE_FILE} nor {INDEX_FILE}") from None
    except (OSError, ValueError, LookupError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file}: must hold a weight_map from tensors to files")
    for name in weight_map.values():
        if not (isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")):
            raise CheckpointError(f"{file}: must name safetensors files of its own folder, not {name!r}")
    return weight_map


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
