"""One layer's experts at the size of 26B-A4B, filled with random weights in place."""

from dataclasses import replace

import torch

from tandem.models.gemma4.attention_config import FULL
from tandem.models.gemma4.config import ExpertsConfig, Gemma4TextConfig
from tandem.models.gemma4.moe import MixtureOfExperts
from tandem.models.gemma4.presets import target_preset

PREFIX = "model.layers.0."


def one_layer_config() -> Gemma4TextConfig:
    """26B-A4B, cut to a single layer."""
    preset = target_preset("gemma-4-26b-a4b")
    return replace(preset, layer_types=(FULL,), attention={FULL: preset.attention[FULL]})


def random_experts(config: Gemma4TextConfig, device: torch.device, seed: int) -> MixtureOfExperts:
    """Router scores are about one unit apart, projections keep the size of what they map."""
    generator = torch.Generator(device).manual_seed(seed)
    experts = MixtureOfExperts(config, PREFIX, torch.bfloat16, device)
    for name, destination in experts.destinations():
        for view in destination.views:
            if "norm" in name or "scale" in name:
                view.uniform_(0.9, 1.1, generator=generator)
            else:
                fan_in = 1.0 if "router" in name else view.shape[-1]
                view.normal_(0.0, fan_in**-0.5, generator=generator)
    return experts


def expert_bytes(experts: ExpertsConfig, hidden_size: int) -> int:
    """Of one expert's weights in bfloat16."""
    return 2 * 3 * hidden_size * experts.intermediate_size
