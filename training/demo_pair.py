"""Train the demo pair and write it as Hugging Face folders: `python -m training.demo_pair --output FOLDER`."""

import argparse
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import (
    batches,
    corpus,
    drafter_training,
    evaluation,
    export,
    generation,
    model_card,
    prompts,
    target_training,
)
from training import tokenizer as tokens_of
from training.network import Drafter, Target
from training.shapes import DRAFTER, DRAFTS, TARGET
from training.target_training import Plan

_STARTED = time.monotonic()


@dataclass(frozen=True)
class Settings:
    """What one run does."""

    output: Path
    work: Path  # downloads and the token archive; kept between runs
    start: Path | None  # a pair to continue from
    seconds_target: float
    seconds_drafter: float
    written_rounds: int  # batches of texts that the target writes for the drafter
    written_count: int  # texts a batch
    target_sequences: int  # a step; each 1,024 tokens
    drafter_sequences: int  # a step; each 512 tokens
    matrix_rate: float
    adam_rate: float
    evaluated: int  # prompts
    emitted: int  # tokens a prompt in the evaluation


def prepare(work: Path) -> None:
    """Download the corpus, train the tokenizer, tokenise and choose the prompts, unless `work` holds all that."""
    if (work / "train.xz").exists():
        return
    corpus.download(work / "wheels")
    documents = corpus.read(work / "wheels")
    say(f"{len(documents.train)} files, {sum(len(d.text) for d in documents.train):,} characters")
    tokenizer = tokens_of.train_tokenizer((d.text for d in documents.train[::4]), TARGET.vocabulary)
    tokens_of.save(tokenizer, work)
    prompts.save(prompts.choose_prompts(documents.held_out), work / "heldout_prompts.json")
    held_out = tokens_of.encode(tokenizer, [d.text for d in documents.held_out])
    batches.store(work, tokens_of.encode(tokenizer, [d.text for d in documents.train]), held_out)


def run(settings: Settings) -> None:
    """Train target and drafter, measure them, write everything under `settings.output`."""
    prepare(settings.work)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_tokens, held_out = (part.to(device) for part in batches.load(settings.work))
    say(f"{len(train_tokens):,} training tokens, {len(held_out):,} held out")
    target, drafter = _networks(settings, device)
    if device.type == "cuda":
        torch._dynamo.config.cache_size_limit = 64  # one layer's code serves both networks and both kinds of layer
        for layer in (*target.model.layers, *drafter.model.layers):
            layer.compile(dynamic=False)
    report: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "settings": {name: value for name, value in asdict(settings).items() if not isinstance(value, Path)},
        "corpus_tokens": len(train_tokens),
        "target_parameters": sum(p.numel() for p in target.parameters()),
        "drafter_parameters": sum(p.numel() for p in drafter.parameters()),
    }
    if settings.seconds_target > 0:
        plan = Plan(settings.seconds_target, settings.target_sequences, 1024, settings.matrix_rate, settings.adam_rate)
        report["target_tokens_read"] = target_training.train(target, train_tokens, plan, say)
    export.save_target(target, settings.output / "target")
    # From here on the target is what its file holds: the drafter learns the rounded weights.
    target.load_state_dict(export.load_target(settings.output / "target", device).state_dict())
    target.requires_grad_(False)
    with torch.compiler.set_stance("force_eager"):
        report["held_out_loss"] = target_training.held_out_loss(target, held_out)
        say(f"held-out loss {report['held_out_loss']:.4f}")
        written = _written(target, train_tokens, settings)
    if settings.seconds_drafter > 0:
        plan = Plan(settings.seconds_drafter, settings.drafter_sequences, 512, settings.matrix_rate, settings.adam_rate)
        report["drafter_positions_read"] = drafter_training.train(target, drafter, train_tokens, written, plan, say)
    export.save_drafter(drafter, settings.output / "drafter")
    drafter.load_state_dict(export.load_drafter(settings.output / "drafter", device).state_dict())
    with torch.compiler.set_stance("force_eager"):
        _measure(target, drafter, settings, report)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(settings.work / name, settings.output / "target" / name)
    shutil.copy(settings.work / "heldout_prompts.json", settings.output)
    (settings.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (settings.output / "README.md").write_text(model_card.render(report))
    say("written")


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:7.1f} s  {line}", flush=True)


def _networks(settings: Settings, device: torch.device) -> tuple[Target, Drafter]:
    torch.manual_seed(0)
    target, drafter = Target(TARGET).to(device), Drafter(DRAFTER, TARGET.hidden).to(device)
    if settings.start is not None:
        target.load_state_dict(export.load_target(settings.start / "target", device).state_dict())
        if (settings.start / "drafter").exists():
            drafter.load_state_dict(export.load_drafter(settings.start / "drafter", device).state_dict())
    return target, drafter


def _written(target: Target, tokens: Tensor, settings: Settings) -> Tensor | None:
    """Texts [N, 512] that the target wrote, or None where the settings ask for none."""
    parts = [
        generation.self_written(target, tokens, settings.written_count, 512, seed)
        for seed in range(settings.written_rounds)
    ]
    say(f"{len(parts) * settings.written_count} texts of the target's own")
    return torch.cat(parts) if parts else None


def _measure(target: Target, drafter: Drafter, settings: Settings, report: dict[str, object]) -> None:
    tokenizer = Tokenizer.from_file(str(settings.work / "tokenizer.json"))
    texts = prompts.load(settings.work / "heldout_prompts.json")[: settings.evaluated]
    encoded = [tokenizer.encode(text).ids for text in texts]
    cases = {"greedy": None, "sampled": generation.Gumbel(0.8, 64, 0.95, seed=7)}
    for name, sampling in cases.items():
        written = evaluation.continue_prompts(target, encoded, settings.emitted, sampling)
        for drafts in (DRAFTS, 7):
            acceptance = evaluation.measure(target, drafter, written, drafts, sampling)
            report[f"{name}_{drafts}"] = {**asdict(acceptance), "mean": acceptance.mean, "median": acceptance.median}
            say(f"{name} K={drafts}: {acceptance.line()}")
        for row in (0, len(texts) // 2):
            start = written.starts[row]
            said = tokenizer.decode(written.tokens[row, start : start + settings.emitted].tolist())
            say(f"--- {name}, after {texts[row][-120:]!r}\n{said}\n---")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the pair")
    parser.add_argument("--work", type=Path, default=Path("build/demo-pair"), help="downloads and token archive")
    parser.add_argument("--start", type=Path, default=None, help="a pair to continue from")
    parser.add_argument("--minutes-target", type=float, default=8.0)
    parser.add_argument("--minutes-drafter", type=float, default=8.0)
    parser.add_argument("--written-rounds", type=int, default=2)
    parser.add_argument("--written-count", type=int, default=4096)
    parser.add_argument("--target-sequences", type=int, default=64)
    parser.add_argument("--drafter-sequences", type=int, default=64)
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--evaluated", type=int, default=60)
    parser.add_argument("--emitted", type=int, default=128)
    given = parser.parse_args()
    run(
        Settings(
            output=given.output,
            work=given.work,
            start=given.start,
            seconds_target=given.minutes_target * 60,
            seconds_drafter=given.minutes_drafter * 60,
            written_rounds=given.written_rounds,
            written_count=given.written_count,
            target_sequences=given.target_sequences,
            drafter_sequences=given.drafter_sequences,
            matrix_rate=given.matrix_rate,
            adam_rate=given.adam_rate,
            evaluated=given.evaluated,
            emitted=given.emitted,
        )
    )


if __name__ == "__main__":
    main()
