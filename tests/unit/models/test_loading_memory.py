"""Loading holds the weights once: a process of its own loads hundreds of megabytes, and says what it took at most."""

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch

from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.drafter_config import read_drafter_config
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.target import Gemma4Target
from tests.checkpoints import make_tiny_pair

MB = 1 << 20
NUM_SHARDS = 4
SLACK_BYTES = 40 * MB  # pieces under way, the libraries' own
# A target of many layers: shards that were read must go. A drafter that is all vocabulary: no copy of a large tensor.
TARGET = {"vocab_size": 1 << 15, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 12}
DRAFTER = {"vocab_size": 1 << 16, "hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 4}
LOAD = """
import sys
from pathlib import Path
import torch
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.weights import load_drafter, load_target

def memory(name):  # in bytes
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) << 10

which, target, drafter, warm_up = sys.argv[1:]
load_target(warm_up, torch.bfloat16, "cpu")
config = read_target_config(Path(target))
before = memory("VmRSS")
if which == "target":
    network = load_target(target, torch.bfloat16, "cpu")
elif which == "target in 8 bits":
    network = load_target(target, torch.bfloat16, "cpu", linear=Fp8Linear)
else:
    network = load_drafter(drafter, config, torch.bfloat16, "cpu", None)
print(memory("VmHWM") - before)
"""


def enlarge(folder: Path, tensors: dict[str, tuple[int, ...]]) -> int:
    """Makes it a checkpoint of zeros in four sparse files; returns the size of the largest."""
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    weight_map, largest = {}, 0
    for number in range(NUM_SHARDS):
        header, end = {}, 0
        for name in names[number::NUM_SHARDS]:
            start, end = end, end + 2 * prod(tensors[name])
            header[name] = {"dtype": "BF16", "shape": list(tensors[name]), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        file = folder / f"model-{number}.safetensors"
        with file.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + end)
        weight_map |= dict.fromkeys(header, file.name)
        largest = max(largest, end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return largest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("which", ["target", "target in 8 bits", "drafter"])
def test_no_second_copy_of_the_weights_is_ever_held(which: str, tmp_path: Path) -> None:
    warm_up, _ = make_tiny_pair(tmp_path / "tiny")
    target, drafter = make_tiny_pair(tmp_path / "large")
    target_config = json.loads((target / "config.json").read_text())
    target_config |= TARGET | {"layer_types": target_config["layer_types"] * 2}
    if which == "drafter":
        target_config["vocab_size"] = DRAFTER["vocab_size"]
    (target / "config.json").write_text(json.dumps(target_config))
    drafter_config = json.loads((drafter / "config.json").read_text())
    drafter_config["backbone_hidden_size"] = TARGET["hidden_size"]
    drafter_config["text_config"] |= DRAFTER
    (drafter / "config.json").write_text(json.dumps(drafter_config))
    if which != "drafter":
        linear = Fp8Linear if which == "target in 8 bits" else Linear
        network = Gemma4Target(read_target_config(target), torch.bfloat16, "meta", linear=linear)
        # On a CPU the head is a matrix of its own.
        kept = 2 * TARGET["vocab_size"] * TARGET["hidden_size"]
    else:
        network = Gemma4MtpDrafter(read_drafter_config(drafter), None, torch.bfloat16, "meta")
        kept = 0
    wanted = dict(network.destinations())
    tensors = {name: destination.shape for name, destination in wanted.items()}
    largest = enlarge(drafter if which == "drafter" else target, tensors)
    kept += sum(view.nbytes for destination in wanted.values() for view in destination.views)
    assert kept > 100 * MB and largest > SLACK_BYTES

    command = [sys.executable, "-c", LOAD, which, *map(str, (target, drafter, warm_up))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert kept < int(loaded.stdout) < kept + largest + SLACK_BYTES
