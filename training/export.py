"""The pair as folders that Hugging Face's loaders read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.network import Drafter, Target
from training.shapes import DRAFTER, DRAFTS, TARGET, drafter_config, target_config
from training.tokenizer import BOS, END_OF_TURN, EOS, PAD

_WEIGHTS = "model.safetensors"
_VERSION = "5.17.0"  # of transformers: the one that the files are checked against


def save_target(target: Target, folder: Path) -> None:
    """Write the target's weights in bfloat16 with both configuration files."""
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 64, "top_p": 0.95}
    _save(target, folder, target_config(), sampling)


def save_drafter(drafter: Drafter, folder: Path) -> None:
    """Write the drafter's weights in bfloat16 with both configuration files."""
    _save(
        drafter, folder, drafter_config(), {"num_assistant_tokens": DRAFTS, "num_assistant_tokens_schedule": "constant"}
    )


def load_target(folder: Path, device: torch.device) -> Target:
    """Read a target back, in float32 master weights."""
    target = Target(TARGET)
    _load(target, folder)
    return target.to(device)


def load_drafter(folder: Path, device: torch.device) -> Drafter:
    """Read a drafter back, in float32 master weights."""
    drafter = Drafter(DRAFTER, TARGET.hidden)
    _load(drafter, folder)
    return drafter.to(device)


def _save(network: nn.Module, folder: Path, config: dict[str, Any], generation: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().bfloat16().cpu().contiguous() for name, value in network.state_dict().items()}
    unfinished = folder / "model.unfinished"
    save_file(weights, str(unfinished), metadata={"format": "pt"})
    unfinished.replace(folder / _WEIGHTS)  # in one step, so that a run cut short leaves the earlier file
    stops = {"bos_token_id": BOS, "eos_token_id": [EOS, END_OF_TURN], "pad_token_id": PAD}
    _write(folder / "config.json", {**config, "transformers_version": _VERSION})
    _write(folder / "generation_config.json", {**stops, **generation, "transformers_version": _VERSION})


def _load(network: nn.Module, folder: Path) -> None:
    network.load_state_dict({name: value.float() for name, value in load_file(folder / _WEIGHTS).items()})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
