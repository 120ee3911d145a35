"""Times the choice of tokens against reading the logits once: `python -m tests.gpu.time_sampler`.

Each line is a kind of rows: microseconds of a batch of 1, 8, 64 and 256 in a captured graph that knows nothing of its
rows, on logits spread as a trained model's and on nearly flat ones; last the time of one read of the logits at the
speed of a plain read from memory (a small batch is still in the cache, and may be faster).
"""

import sys
from dataclasses import replace

import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample
from tests.gpu.time_moe import milliseconds, read_speed

VOCAB_SIZE = 262_144
NUM_ROWS = (1, 8, 64, 256)
KINDS = {
    "greedy": SamplingParams(temperature=0.0),
    "top-k 64, top-p 0.95": SamplingParams(top_k=64, top_p=0.95),
    "top-k 1000": SamplingParams(top_k=1000),
    "top-p 0.95": SamplingParams(top_p=0.95),
    "top-p 0.5": SamplingParams(top_p=0.5),
    "min-p 0.05": SamplingParams(min_p=0.05),
    "plain": SamplingParams(),
}
DEVICE = torch.device("cuda")


def logits_of(num_rows: int, spread: float) -> torch.Tensor:  # -> [num_rows, VOCAB_SIZE] float32
    """Normal logits; a spread of 3 gives a perplexity of some tens, one of 1 of a hundred thousand."""
    generator = torch.Generator(DEVICE).manual_seed(num_rows)
    logits = torch.randn(num_rows, VOCAB_SIZE, generator=generator, device=DEVICE) * spread
    return logits.bfloat16().float()


def main() -> int:
    """Prints the table."""
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 1
    speed = read_speed()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, reads {speed / 1e9:.2f} TB/s")
    print(f"{'microseconds':<32}" + "".join(f"{f'{count} rows':>10}" for count in NUM_ROWS))
    for spread in (3.0, 1.0):
        batches = [logits_of(count, spread) for count in NUM_ROWS]
        for kind, params in KINDS.items():
            times = []
            for logits in batches:
                pairs = [(replace(params, seed=row), 1000 + row) for row in range(len(logits))]
                rows = replace(SamplingRows.from_params(pairs, DEVICE), is_all_greedy=False, max_top_k=None)
                times.append(milliseconds(lambda logits=logits, rows=rows: sample(logits, rows)) * 1e3)
            print(f"{f'{kind}, spread {spread:.0f}':<32}" + "".join(f"{time:>10.1f}" for time in times))
    print(f"{'one read':<32}" + "".join(f"{count * VOCAB_SIZE * 4 / speed * 1e3:>10.1f}" for count in NUM_ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
