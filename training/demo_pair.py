"""Train the demo pair and write it as Hugging Face folders: `python -m training.demo_pair --output FOLDER`."""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from training import (
    batches,
    corpus,
    drafter_training,
    export,
    generation,
    measuring,
    model_card,
    prompts,
    target_training,
)
from training import tokenizer as tokens_of
from training.acceleration import Accelerator
from training.network import Drafter, Target
from training.settings import Settings, parse
from training.shapes import DRAFTER, TARGET

_STARTED = time.monotonic()
_REPORT = "report.json"
_PROMPTS = "heldout_prompts.json"


def main() -> None:
    """Read the command line, then do what it asks for."""
    settings = parse(__doc__)
    prepare(settings.work)
    if settings.stage != "measure":
        train(settings, Accelerator())
    if settings.stage != "train":
        measure(settings)


def prepare(work: Path) -> None:
    """Download the corpus, train the tokenizer, tokenise and choose the prompts, unless `work` holds all that."""
    if (work / "train.xz").exists():
        return
    corpus.download(work / "wheels")
    documents = corpus.read(work / "wheels")
    say(f"{len(documents.train)} files, {sum(len(d.text) for d in documents.train):,} characters")
    tokenizer = tokens_of.train_tokenizer((d.text for d in documents.train[::4]), TARGET.vocabulary)
    tokens_of.save(tokenizer, work)
    prompts.save(prompts.choose_prompts(documents), work / _PROMPTS)
    held_out = tokens_of.encode(tokenizer, [d.text for d in documents.held_out])
    batches.store(work, tokens_of.encode(tokenizer, [d.text for d in documents.train]), held_out)


def train(settings: Settings, machine: Accelerator) -> None:
    """Train target and drafter, and write their folders with a report of the training."""
    tokens = batches.load_training(settings.work).to(machine.device)
    torch.manual_seed(0)
    target, drafter = Target(TARGET).to(machine.device), Drafter(DRAFTER, TARGET.hidden).to(machine.device)
    say(f"{len(tokens):,} training tokens, on {machine.name}")
    report: dict[str, Any] = {
        "device": machine.name,
        "torch": torch.__version__,
        "corpus_tokens": len(tokens),
        "target_parameters": sum(p.numel() for p in target.parameters()),
        "drafter_parameters": sum(p.numel() for p in drafter.parameters()),
    }
    if settings.target is not None:
        target.load_state_dict(export.load_target(settings.target, machine.device).state_dict())
        report["target"] = _read_report(settings.target.parent)["target"]
    else:
        plan = settings.plan(_STARTED + settings.target_until, settings.target_sequences, length=1024)
        report["target"] = asdict(target_training.train(target, tokens, plan, machine, say))
    export.save_target(target, settings.output / "target")
    # From here on the target is what its file holds: the drafter learns the rounded weights.
    target.load_state_dict(export.load_target(settings.output / "target", machine.device).state_dict())
    target.requires_grad_(False)
    report["drafter"] = []  # one entry for each run that trained it
    if settings.drafter is not None:
        drafter.load_state_dict(export.load_drafter(settings.drafter, machine.device).state_dict())
        report["drafter"] = _read_report(settings.drafter.parent)["drafter"]
    _write_report(settings.output, report)
    written = _written(target, tokens, settings)
    report["written_texts"] = 0 if written is None else len(written)
    plan = settings.plan(_STARTED + settings.drafter_until, settings.drafter_sequences, length=512)

    def save() -> None:
        export.save_drafter(drafter, settings.output / "drafter")

    outcome = drafter_training.train(target, drafter, tokens, written, plan, machine, save, say)
    save()
    report["drafter"].append(asdict(outcome))
    _write_report(settings.output, report)
    say("trained")


def measure(settings: Settings) -> None:
    """Measure the pair in the output folder and complete that folder: tokenizer, prompts, model card."""
    for name in tokens_of.FILES:
        shutil.copy(settings.work / name, settings.output / "target" / name)
    shutil.copy(settings.work / _PROMPTS, settings.output)
    report = _read_report(settings.output)
    pair = measuring.Pair.load(settings.output)
    held_out = batches.load_held_out(settings.work)
    report["held_out_tokens"] = len(held_out)
    report["held_out_loss"] = target_training.held_out_loss(pair.target, held_out)
    say(f"held-out loss {report['held_out_loss']:.4f}")
    texts = prompts.load(settings.output / _PROMPTS)[: settings.evaluated]
    report["acceptance"] = measuring.acceptance(pair, texts, settings.emitted, say)
    report["samples"] = measuring.samples(pair, texts)
    _write_report(settings.output, report)
    (settings.output / "README.md").write_text(model_card.render(report))
    say("measured")


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:7.1f} s  {line}", flush=True)


def _written(target: Target, tokens: torch.Tensor, settings: Settings) -> torch.Tensor | None:
    """Texts [N, 512] that the target wrote, or None where the settings ask for none or time does not allow them."""
    if settings.written == 0:
        return None
    started = time.monotonic()
    ends = started + (_STARTED + settings.drafter_until - started) / 6
    try:
        texts = generation.self_written(target, tokens, settings.written, 512, seed=0, ends=ends)
    except (TimeoutError, torch.OutOfMemoryError) as error:
        say(f"no texts of the target's own: {type(error).__name__}")
        return None
    say(f"{len(texts)} texts of the target's own")
    return texts


def _read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / _REPORT).read_text())
    return report


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / _REPORT).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
