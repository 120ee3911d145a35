"""What one run of the training does, as its command line says."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from training.target_training import Plan


@dataclass(frozen=True)
class Settings:
    """Settings of one run."""

    output: Path
    work: Path  # downloads and the token archive; kept between runs
    stage: str  # all, train or measure
    start: Path | None  # a pair to go on from
    target_until: float  # seconds after the start; a stage with 0 is left out
    drafter_until: float
    refine_until: float
    target_sequences: int  # a step, each 1,024 tokens
    drafter_sequences: int  # a step, each 512 tokens
    written: int  # texts that the target writes for refining
    matrix_rate: float
    adam_rate: float
    evaluated: int  # prompts
    emitted: int  # tokens a prompt in the evaluation

    def plan(self, ends: float, sequences: int, length: int) -> Plan:
        """The plan of a stage that ends at `ends` on time.monotonic()'s clock."""
        return Plan(ends, sequences, length, self.matrix_rate, self.adam_rate)


def parse(description: str | None) -> Settings:
    """Read the command line; steps are smaller where there is no GPU."""
    is_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the pair")
    add("--work", type=Path, default=Path("build/demo-pair"), help="downloads and token archive")
    add("--stage", choices=("all", "train", "measure"), default="all", help="training and measuring may be two runs")
    add("--start", type=Path, help="folder of a pair to go on from")
    add("--target-until", type=float, default=480.0, help="seconds after the start when the target ends; 0: untrained")
    add("--drafter-until", type=float, default=900.0, help="the same for the drafter on the corpus")
    # Off: 25 minutes of it on a CPU, over 1,024 texts, took the shipped drafter's acceptance from 3.04 to 2.87.
    add("--refine-until", type=float, default=0.0, help="the same for the drafter on the target's own texts; 0: none")
    add("--target-sequences", type=int, default=64 if is_gpu else 4, help="of 1,024 tokens, a step")
    add("--drafter-sequences", type=int, default=64 if is_gpu else 4, help="of 512 tokens, a step")
    add("--written", type=int, default=8192 if is_gpu else 1024, help="texts that the target writes, at most")
    add("--matrix-rate", type=float, default=0.02, help="learning rate of the layers' matrices")
    add("--adam-rate", type=float, default=3e-3, help="learning rate of embeddings and norms")
    add("--evaluated", type=int, default=1000, help="held-out prompts to measure on, at most")
    add("--emitted", type=int, default=128, help="tokens to write after each")
    return Settings(**vars(parser.parse_args()))
