"""Checkpoints on disk to networks in memory, strictly: every tensor is known, present and of the right shape."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from tandem.core.errors import CheckpointError
from tandem.models.gemma4.checkpoint_files import CheckpointFiles
from tandem.models.gemma4.config import Gemma4TextConfig, read_target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.drafter_config import Gemma4DrafterConfig, read_drafter_config
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destination
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weight_source import Tensors, WeightSource
from tandem.models.progress import Progress
from tandem.models.ranks import ALONE, Ranks
from tandem.models.weight_files import revision

logger = logging.getLogger(__name__)

_TIED_HEAD = "lm_head.weight"
_OTHER_MODALITIES = re.compile(r"model\.(?:embed_)?(vision|audio)(?:_tower|_embedder)?\.")


class CheckpointWeights:
    """The `WeightSource` of every service: the folder's own files."""

    def open(self, folder: Path, wanted: Mapping[str, Destination], unused: re.Pattern[str]) -> CheckpointFiles:
        """See `WeightSource`."""
        files = CheckpointFiles(folder)
        _check(folder, files, wanted, unused)
        return files

    def revision(self, folder: Path) -> str:
        """See `WeightSource`."""
        return revision(folder)


CHECKPOINT = CheckpointWeights()


def load_target(
    path: str | Path,
    dtype: torch.dtype,
    device: torch.device | str,
    embedding: torch.Tensor | None = None,  # [vocab_size, hidden_size]
    progress: Progress | None = None,
    weights: WeightSource = CHECKPOINT,
    linear: type[Linear] = Linear,
    ranks: Ranks = ALONE,
) -> Gemma4Target:
    """Reads a target, or a rank's share of it.

    Args:
        path: the checkpoint folder.
        dtype: of weights and activations; the files' own dtype is cast.
        device: where the network goes.
        embedding: where the token table goes, such as shared memory.
        progress: told how many weights are read.
        weights: where they come from.
        linear: class of the layers' products, such as `Fp8Linear`.
        ranks: who computes the network; they must be able to share it.

    Raises:
        CheckpointError: the folder does not hold exactly such a target.
    """
    folder = Path(path)
    config = read_target_config(folder)
    # Checked on a network without memory first: no file can make us allocate what it does not hold.
    wanted = dict(Gemma4Target(config, dtype, "meta", linear=linear, ranks=ranks).destinations())
    tensors = weights.open(folder, wanted, _unused_keys(config))
    target = Gemma4Target(config, dtype, device, embedding, linear=linear, ranks=ranks)
    _fill(tensors, dict(target.destinations()), progress)
    return target


def load_drafter(
    path: str | Path,
    target_config: Gemma4TextConfig,
    dtype: torch.dtype,
    device: torch.device | str,
    target_embedding: torch.Tensor | None,  # [vocab_size, backbone]; None: to be bound later
    progress: Progress | None = None,
    weights: WeightSource = CHECKPOINT,
) -> Gemma4MtpDrafter:
    """Reads a drafter and checks that it fits the target.

    Raises:
        CheckpointError: the folder does not hold exactly such a drafter, or it was made for another target.
    """
    folder = Path(path)
    config = read_drafter_config(folder)
    check_pair(config, target_config)
    wanted = dict(Gemma4MtpDrafter(config, None, dtype, "meta").destinations())
    tensors = weights.open(folder, wanted, _unused_keys(config.text))
    drafter = Gemma4MtpDrafter(config, target_embedding, dtype, device)
    _fill(tensors, dict(drafter.destinations()), progress)
    drafter.arrange(folder)
    return drafter


def check_pair(drafter_config: Gemma4DrafterConfig, target_config: Gemma4TextConfig) -> None:
    """Raises CheckpointError unless the drafter can read what the target shares."""
    text = drafter_config.text
    pairs = {
        "backbone_hidden_size": (drafter_config.backbone_hidden_size, target_config.hidden_size),
        "vocab_size": (text.vocab_size, target_config.vocab_size),
    }
    for layer_type, ours in text.attention.items():
        theirs = target_config.attention.get(layer_type)
        if theirs is None:
            raise CheckpointError(f"the drafter does not fit the target: layer_types: it has no {layer_type} layer")
        for name in ("num_kv_heads", "head_dim", "window", "rope_theta", "num_rope_angles"):
            pairs[f"{name} of {layer_type}"] = (getattr(ours, name), getattr(theirs, name))
    for name, (of_drafter, of_target) in pairs.items():
        if of_drafter != of_target:
            raise CheckpointError(
                f"the drafter does not fit the target: {name} is {of_drafter} in the drafter, {of_target} in the target"
            )


def _unused_keys(config: Gemma4TextConfig) -> re.Pattern[str]:
    """Tensors that layers without KV of their own may still carry."""
    num_owning = config.num_hidden_layers - config.num_kv_shared_layers
    layers = "|".join(map(str, range(num_owning, config.num_hidden_layers))) or "none"
    return re.compile(rf"{re.escape(config.tensor_prefix)}layers\.({layers})\.self_attn\.(k|v)_(proj|norm)\.weight")


def _check(folder: Path, files: CheckpointFiles, wanted: Mapping[str, Destination], unused: re.Pattern[str]) -> None:
    """Raises CheckpointError unless the files hold exactly the wanted tensors, besides those to be passed over."""
    present = set(files.names())
    missing = sorted(wanted.keys() - present)
    if missing:
        raise CheckpointError(f"{folder}: {missing[0]} is missing ({len(missing)} tensors in all)")
    others = {name: _OTHER_MODALITIES.match(name) for name in present - wanted.keys()}
    surplus = sorted(
        name for name, modality in others.items() if not (modality or name == _TIED_HEAD or unused.fullmatch(name))
    )
    if surplus:
        raise CheckpointError(f"{files.source(surplus[0])}: {surplus[0]} is not expected ({len(surplus)} in all)")
    for name, destination in wanted.items():
        if files.shape(name) != destination.shape:
            raise CheckpointError(
                f"{files.source(name)}: {name} has shape {list(files.shape(name))}, not {list(destination.shape)}"
            )
    passed_over = Counter(modality[1] for modality in others.values() if modality)
    if passed_over:
        counts = ", ".join(f"{count} tensors of {modality}" for modality, count in sorted(passed_over.items()))
        logger.info("%s: text only is served; passed over: %s", folder, counts)


def _fill(tensors: Tensors, wanted: Mapping[str, Destination], progress: Progress | None) -> None:
    """Reads checked tensors to where they belong, a piece at a time."""
    rows = {name: destination.rows for name, destination in wanted.items()}
    done, total = 0, sum(len(rows[name]) * prod(destination.shape[1:]) for name, destination in wanted.items())
    for name, start, piece in tensors.read(wanted, rows):
        wanted[name].write(piece, start)
        done += piece.numel()
        if progress:
            progress(done, total)
