"""Times the experts of 26B-A4B against the bytes that they must read: `python -m tests.gpu.time_moe`.

Each line is a number of rows: how many experts they touch in a layer, the time of a layer's whole mixture in a captured
graph, with our kernels and with torch's grouped products, the time that reading the touched weights takes at the speed
of a plain read, and how many rows come out bit for bit as they do alone.
"""

import statistics
import sys

import torch

from tandem.models.gemma4.moe import MixtureOfExperts, mix_by_grouped_products
from tests.gpu.captured import milliseconds
from tests.gpu.experts import expert_bytes, one_layer_config, random_experts

NUM_LAYERS = 6  # one after the other, so that no weight is still in the cache when its turn comes again
NUM_TURNS = 21
NUM_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048)
DEVICE = torch.device("cuda")


def layer_time(layers: list[MixtureOfExperts], dense: torch.Tensor, hidden: torch.Tensor) -> float:
    """Milliseconds of one layer's mixture, on the mean of all."""
    return milliseconds(lambda: [layer.add_to(dense.clone(), hidden) for layer in layers], NUM_TURNS) / len(layers)


def read_speed() -> float:
    """Bytes a millisecond of a sum over memory far larger than any cache."""
    memory = torch.ones(2 << 30, dtype=torch.bfloat16, device=DEVICE)
    return memory.nbytes / milliseconds(memory.sum, NUM_TURNS)


def num_stable_rows(experts: MixtureOfExperts, dense: torch.Tensor, hidden: torch.Tensor) -> int:
    """Rows of a step that round as they do alone."""
    together = experts.add_to(dense.clone(), hidden)
    alone = [experts.add_to(dense[row : row + 1].clone(), hidden[row : row + 1]) for row in range(len(hidden))]
    return sum(torch.equal(one[0], row) for one, row in zip(alone, together, strict=True))


def main() -> int:
    """Prints the table."""
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 1
    config = one_layer_config()
    assert config.experts is not None
    layers = [random_experts(config, DEVICE, seed) for seed in range(NUM_LAYERS)]
    speed = read_speed()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, reads {speed / 1e9:.2f} TB/s")
    print(f"{'rows':>5}{'experts':>9}{'kernels ms':>12}{'grouped ms':>12}{'floor ms':>10}{'ratio':>7}{'stable':>8}")
    generator = torch.Generator(DEVICE).manual_seed(0)
    for count in NUM_ROWS:
        shape = (2, count, config.hidden_size)
        dense, hidden = torch.randn(shape, generator=generator, device=DEVICE, dtype=torch.bfloat16)
        touched = [layer._route(hidden)[0].unique().numel() for layer in layers]
        time = layer_time(layers, dense, hidden)
        kernels = layers[0]._mix_sorted
        for layer in layers:
            layer._mix_sorted = mix_by_grouped_products
        grouped = layer_time(layers, dense, hidden)
        for layer in layers:
            layer._mix_sorted = kernels
        floor = statistics.mean(touched) * expert_bytes(config.experts, config.hidden_size) / speed
        stable = num_stable_rows(layers[0], dense[:64], hidden[:64]) if count <= 64 else "-"
        print(
            f"{count:>5}{statistics.mean(touched):>9.1f}{time:>12.3f}{grouped:>12.3f}{floor:>10.3f}"
            f"{time / floor:>7.2f}{stable:>8}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
