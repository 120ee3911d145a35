"""Every kernel compiles for a Hopper GPU, at the sizes of 31B, and fits one. That needs no GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERVICES = Path(__file__).parents[3] / "services"
PARTS = {"turn_kernel", "widen_kernel", "choice_kernel", "tile_kernel"}  # of the kernels of other modules
MAX_SHARED = 227 << 10  # bytes of a program
MAX_REGISTERS = 1 << 16  # of a program
MAX_SPILLED = 512  # bytes of a thread: attention of full layers has 300 of them


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    """In a process that may compile: kernels are interpreted in this one."""
    command = [sys.executable, "-m", "tests.kernel_resources", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_kernel_is_left_out(resources: list[dict[str, Any]]) -> None:
    modules = {path.stem for pattern in ("*_kernel.py", "*_kernels.py") for path in SERVICES.rglob(pattern)}
    assert {one["module"].split(".")[-1] for one in resources} == modules - PARTS


def test_a_program_fits_a_multiprocessor(resources: list[dict[str, Any]]) -> None:
    for one in resources:
        assert 0 < one["registers"] * 32 * one["num_warps"] <= MAX_REGISTERS, one
        assert one["shared"] <= MAX_SHARED, one
        assert one["spilled"] <= MAX_SPILLED, one
