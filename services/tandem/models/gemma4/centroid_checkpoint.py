"""Gives a drafter's checkpoint a head over centroids, in a folder of its own."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from tandem.core.errors import CheckpointError
from tandem.models.gemma4.centroids import Told, balanced_clusters
from tandem.models.gemma4.checkpoint_files import CheckpointFiles
from tandem.models.gemma4.config import read_fields
from tandem.models.gemma4.drafter_config import CentroidConfig, drafter_config
from tandem.models.gemma4.fields import Fields
from tandem.models.weight_files import INDEX_FILE, SINGLE_FILE

_CONFIG_FILE = "config.json"


def write_with_centroids(
    source: Path, output: Path, centroids: CentroidConfig, iterations: int, seed: int = 0, tell: Told | None = None
) -> None:
    """Clusters the token table of a dense drafter and writes the drafter with that head.

    Args:
        source: the dense drafter; nothing there is changed.
        output: the folder to make; takes one file of weights, the changed config.json, and all other JSON files.
        centroids: how many, and into how many of them a draft looks.
        iterations: of the clustering.
        seed: of the clustering.
        tell: told after every iteration.

    Raises:
        CheckpointError: the source is no dense drafter, the sizes do not fit it, or `output` is there already.
    """
    before = read_fields(source)
    if drafter_config(before).centroids:
        raise CheckpointError(f"{source}: has centroids already")
    values = {
        **before.values,
        "use_ordered_embeddings": True,
        "num_centroids": centroids.num_centroids,
        "centroid_intermediate_top_k": centroids.top_k,
    }
    config = drafter_config(Fields(before.source, values))
    if output.exists():
        raise CheckpointError(f"{output}: is there already; name a folder to be made")
    files = CheckpointFiles(source)
    tensors = _read_all(files)
    name = f"{config.text.tensor_prefix}embed_tokens.weight"
    shape = (config.text.vocab_size, config.text.hidden_size)
    table = tensors.get(name)
    if table is None or table.shape != shape or not table.isfinite().all():
        raise CheckpointError(f"{source}: {name} must be there, of shape {list(shape)}, and finite")
    means, members = balanced_clusters(table.float(), centroids.num_centroids, iterations, seed, tell)
    tensors["masked_embedding.centroids.weight"] = means.to(table.dtype)
    tensors["masked_embedding.token_ordering"] = members.flatten()
    _write(source, output, values, tensors)


def _read_all(files: CheckpointFiles) -> dict[str, torch.Tensor]:
    """By name, each in the dtype of the file. A drafter's are few and small."""
    tensors: dict[str, torch.Tensor] = {}
    for name, start, rows in files.read(files.names()):
        if name not in tensors:
            tensors[name] = torch.empty(files.shape(name), dtype=rows.dtype)
        tensors[name][start : start + len(rows)] = rows
    return tensors


def _write(source: Path, output: Path, values: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
    """The config.json comes last: without it, a folder is no checkpoint."""
    try:
        output.mkdir(parents=True)
        for file in source.glob("*.json"):
            if file.name not in (_CONFIG_FILE, INDEX_FILE):
                shutil.copyfile(file, output / file.name)
        save_file(tensors, output / SINGLE_FILE, metadata={"format": "pt"})
        (output / _CONFIG_FILE).write_text(f"{json.dumps(values, indent=2)}\n", encoding="utf-8")
        shutil.copymode(output / _CONFIG_FILE, output / SINGLE_FILE)  # whoever may read one may read the other
    except OSError as error:
        raise CheckpointError(f"{output}: cannot be written: {error}") from None
