"""Times steady rounds of 31B with random weights: `python -m tests.gpu.time_rounds`, a minute or two on one GPU.

Target and drafter share this process. For each case, a batch and a prompt, the drafter's graph and the verifier's are
captured as the engine does, and replayed: milliseconds a round, drafts and verify apart, and its floor by bytes.
Then come these, and a round without speculation, by kernel: launches, microseconds in which one runs (each kernel's
from the end of those before it, since overlapping ones wait for them), and those in which none does. No draft stands,
so that every round moves on by one token.

    python -m tests.gpu.time_rounds --cases 1x512,1x32768 --weights fp8 --top 20

To compare kernels in a few seconds, with another value of a constant:

    python -m tests.gpu.time_rounds --cases 1x512 --layers 12 --top 0 \\
        --set tandem.models.gemma4.skinny_kernel._NUM_EARLY_LINES=8
"""

import argparse
import ast
import copy
import gc
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.floor import Floors
from tandem.cli.bench.preset.kind import Kind, Way
from tandem.cli.bench.preset.shape import Shape, find_shape
from tandem.engine.assembly import drafter_kv
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.steady_round import Member, RoundShape, SteadyRound
from tandem.exchange.draft_inputs import DraftInputs, private_inputs
from tandem.exchange.spec import ExchangeSpec, SharedLayer
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.presets import TARGETS
from tandem.models.gemma4.random_weights import RandomWeights
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.sampling.judge import judge
from tests.gpu.captured import captured
from tests.gpu.kernels import Kernels

DEVICE = torch.device("cuda")
DTYPE = torch.bfloat16
BLOCK_SIZE = 32
MAX_DRAFTS = 7
SERIES = 20  # rounds between two resets of the positions: bounds the blocks that a sequence needs
REACHES = (2047, 16383, 65535)  # as `run_ahead` has them
LINEARS = {"dtype": Linear, "fp8": Fp8Linear}


class Networks:
    """Target and drafter with random weights."""

    def __init__(self, shape: Shape, linear: type[Linear]) -> None:
        self.shape = shape
        source = RandomWeights(DEVICE)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("target", "drafter")]
            for path, config in zip(paths, (shape.target, shape.drafter), strict=True):
                path.mkdir()
                (path / "config.json").write_text(json.dumps(config))
            self.target: Gemma4Target = load_target(paths[0], DTYPE, DEVICE, weights=source, linear=linear)
            self.drafter: Gemma4MtpDrafter = load_drafter(
                paths[1], self.target.config, DTYPE, DEVICE, self.target.embed_tokens, weights=source
            )


class Case:
    """Sequences that decode from a position on, their earlier keys and values random."""

    def __init__(self, networks: Networks, batch: int, prompt: int) -> None:
        self.networks, self.batch, self.prompt = networks, batch, prompt
        target = networks.target
        last = prompt + SERIES + 2 * (MAX_DRAFTS + 1)
        self.width = -(-last // BLOCK_SIZE)
        firsts = {
            group.name: max(0, prompt - (group.window or prompt)) // BLOCK_SIZE for group in target.kv_groups
        }  # older blocks have been released
        num_blocks = {name: batch * (self.width - first) + 1 for name, first in firsts.items()}
        self.kv = KvStorage(target.stored_groups, num_blocks, BLOCK_SIZE, DTYPE, DEVICE)
        for group in target.kv_groups:
            for layer_id in group.layer_ids:
                self.kv[layer_id].normal_(0.0, group.head_dim**-0.25)
        layers = [SharedLayer(g.name, num_blocks[g.name], g.num_kv_heads, g.head_dim) for g in target.kv_groups]
        spec = ExchangeSpec(
            dtype="bfloat16",
            num_slots=batch + 1,
            max_draft_tokens=MAX_DRAFTS,
            max_blocks=self.width,
            block_size=BLOCK_SIZE,
            vocabulary_size=target.config.vocab_size,
            hidden_size=target.config.hidden_size,
            layers=tuple(layers),
        )
        self.inputs: DraftInputs = private_inputs(spec, drafter_kv(target, self.kv), target.embed_tokens)
        self.inputs.clear()
        self.inputs.hidden.normal_()
        for name, first in firsts.items():
            blocks = torch.randperm(num_blocks[name] - 1, device=DEVICE).view(batch, -1)
            self.inputs.block_tables[name][:batch, first:] = blocks.int()
        drafts = torch.zeros((batch + 1, MAX_DRAFTS), dtype=torch.int64, device=DEVICE)
        self.drafter = DeviceDrafter(networks.drafter, self.inputs, drafts)
        spare = {name: count - 1 for name, count in num_blocks.items()}
        self.program = SteadyRound(target, self.kv, self.inputs, drafts, spare, judge)
        self.reset()

    def reset(self) -> None:
        """Back to the first round."""
        self.inputs.positions.fill_(self.prompt)

    def draft(self) -> Callable[[], object]:
        """Replays the drafts of a round."""
        return captured(partial(self.drafter.draft, range(self.batch), MAX_DRAFTS))

    def verify(self, num_drafts: int) -> Callable[[], object]:
        """Replays a round's step."""
        reach = next(reach for reach in REACHES if reach >= self.width * BLOCK_SIZE)
        shape = RoundShape(self.batch, num_drafts, reach)
        members = [Member(slot, 0, ()) for slot in range(self.batch)]
        control = torch.tensor(self.program.pack(shape, members, num_drafts), device=DEVICE)
        results = torch.zeros((self.batch, num_drafts + 2), dtype=torch.int64, device=DEVICE)
        return captured(lambda: self.program.run(shape, control, results))

    def milliseconds(self, replays: list[Callable[[], object]], num_rounds: int) -> float:
        """Of a round, on the mean of the fastest half of some series."""
        times = []
        for _ in range(max(2, num_rounds // SERIES)):
            self.reset()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(SERIES):
                for replay in replays:
                    replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / SERIES)
        fastest = sorted(times)[: max(1, len(times) // 2)]
        return sum(fastest) / len(fastest)


def read_speed(memory: torch.Tensor) -> float:
    """Bytes a second of a sum."""
    replay = captured(memory.view(torch.int64).sum)
    best = float("inf")
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end))
    return memory.nbytes / best * 1e3


def shape_of(preset: str, num_layers: int) -> Shape:
    """A preset's, or that of the first layers of its target."""
    shape = find_shape(preset)
    if not num_layers:
        return shape
    target = copy.deepcopy(shape.target)
    text = target.get("text_config", target)
    text["layer_types"] = text["layer_types"][:num_layers]
    text["num_hidden_layers"] = num_layers
    return replace(shape, target=target)


def set_constant(text: str) -> None:
    """MODULE.NAME=VALUE: gives a module's constant another value."""
    path, _, value = text.partition("=")
    module_name, _, name = path.rpartition(".")
    module = importlib.import_module(module_name)
    getattr(module, name)  # there must be one
    setattr(module, name, ast.literal_eval(value))


def floor_ms(arguments: argparse.Namespace, case: Case, num_drafts: int, speed: float) -> float:
    """The least time of a round, by its bytes."""
    config = PresetConfig(preset=arguments.preset, random_weights=True, num_speculative_tokens=MAX_DRAFTS)
    floors = Floors(case.networks.shape, config)
    way = Way("inprocess" if num_drafts else "none", arguments.weights, adaptive_k=False)
    return floors.of(way, Kind(case.batch, case.prompt, SERIES)).milliseconds(speed)


def measure(arguments: argparse.Namespace, networks: Networks, batch: int, prompt: int, speed: float) -> None:
    """Prints what one case takes."""
    case = Case(networks, batch, prompt)
    draft, verify, plain = case.draft(), case.verify(MAX_DRAFTS), case.verify(0)
    both, drafts, verifies, without = (
        case.milliseconds(replays, arguments.rounds) for replays in ([draft, verify], [draft], [verify], [plain])
    )
    floors = [floor_ms(arguments, case, count, speed) for count in (MAX_DRAFTS, 0)]
    print(
        f"batch {batch}, prompt {prompt}: {both:.2f} ms a round (floor {floors[0]:.2f}), draft {drafts:.2f},"
        f" verify {verifies:.2f}; without speculation {without:.2f} (floor {floors[1]:.2f})",
        flush=True,
    )
    if arguments.top:
        for name, replay in (("draft", draft), ("verify", verify), ("without speculation", plain)):
            case.reset()
            print("\n".join([f" {name}", *Kernels(replay).lines(arguments.top)]), flush=True)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="gemma-4-31b", choices=TARGETS)
    parser.add_argument("--weights", default="dtype", choices=LINEARS)
    parser.add_argument("--cases", default="1x512,8x512,32x512,1x32768", help="BATCHxPROMPT, with commas between")
    parser.add_argument("--layers", type=int, default=0, help="of the target, the first of them; 0: all")
    parser.add_argument("--set", action="append", default=[], metavar="MODULE.NAME=VALUE", help="of a constant")
    parser.add_argument("--rounds", type=int, default=200, help="of each measurement")
    parser.add_argument("--top", type=int, default=14, help="kernels to show; 0: no profile")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 1
    started_at = time.perf_counter()
    for text in arguments.set:
        set_constant(text)
    torch.manual_seed(0)
    networks = Networks(shape_of(arguments.preset, arguments.layers), LINEARS[arguments.weights])
    speed = read_speed(networks.target.embed_tokens)
    print(f"{torch.cuda.get_device_name()} reads {speed / 1e12:.2f} TB/s; {arguments.preset}, {arguments.weights}")
    for text in arguments.cases.split(","):
        batch, prompt = map(int, text.split("x"))
        try:
            measure(arguments, networks, batch, prompt, speed)
        except torch.cuda.OutOfMemoryError:
            print(f"batch {batch}, prompt {prompt}: does not fit this GPU")
        gc.collect()
        torch.cuda.empty_cache()
    print(f"{time.perf_counter() - started_at:.0f} s in all, {torch.cuda.max_memory_reserved() / 1e9:.1f} GB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
