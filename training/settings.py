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
    target: Path | None  # a finished target to train only a drafter for
    drafter: Path | None  # a drafter to go on from
    target_until: float  # seconds after the start
    drafter_until: float
    target_sequences: int  # a step, each 1,024 tokens
    drafter_sequences: int  # a step, each 512 tokens
    written: int  # texts that the target writes for the drafter's training
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
    add("--target", type=Path, help="folder of a finished target: train only a drafter for it")
    add("--drafter", type=Path, help="folder of a drafter to go on from")
    add("--target-until", type=float, default=480.0, help="seconds after the start when the target is saved")
    add("--drafter-until", type=float, default=840.0, help="seconds after the start when the drafter is saved")
    add("--target-sequences", type=int, default=64 if is_gpu else 4, help="of 1,024 tokens, a step")
    add("--drafter-sequences", type=int, default=64 if is_gpu else 4, help="of 512 tokens, a step")
    add("--written", type=int, default=4096 if is_gpu else 0, help="texts that the target writes for the drafter")
    add("--matrix-rate", type=float, default=0.02, help="learning rate of the layers' matrices")
    add("--adam-rate", type=float, default=3e-3, help="learning rate of embeddings and norms")
    add("--evaluated", type=int, default=1000, help="held-out prompts to measure on, at most")
    add("--emitted", type=int, default=128, help="tokens to write after each")
    return Settings(**vars(parser.parse_args()))
