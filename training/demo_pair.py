"""Train the demo pair and write it as Hugging Face folders: `python -m training.demo_pair --output FOLDER`."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import (
    batches,
    corpus,
    drafter_training,
    export,
    measuring,
    model_card,
    prompts,
    refining,
    target_training,
)
from training import tokenizer as tokens_of
from training.acceleration import Accelerator
from training.network import Drafter, Target
from training.settings import Settings, parse
from training.shapes import DRAFTER, TARGET
from training.target_training import Outcome

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
        "corpus_tokens": len(tokens),
        "target_parameters": sum(p.numel() for p in target.parameters()),
        "drafter_parameters": sum(p.numel() for p in drafter.parameters()),
        "stages": [],
    }
    if settings.start is not None:
        target.load_state_dict(export.load_target(settings.start / "target", machine.device).state_dict())
        drafter.load_state_dict(export.load_drafter(settings.start / "drafter", machine.device).state_dict())
        report["stages"] = _read_report(settings.start)["stages"]

    def save() -> None:
        export.save_drafter(drafter, settings.output / "drafter")

    def note(name: str, outcome: Outcome) -> None:
        report["stages"].append({"name": name, "device": machine.name, **asdict(outcome)})
        _write_report(settings.output, report)

    if settings.target_until > 0:
        plan = settings.plan(_STARTED + settings.target_until, settings.target_sequences, length=1024)
        outcome = target_training.train(target, tokens, plan, machine, say)
        export.save_target(target, settings.output / "target")
        note("target, on the corpus", outcome)
        # From here on the target is what its file holds: the drafter learns the rounded weights.
        target.load_state_dict(export.load_target(settings.output / "target", machine.device).state_dict())
    else:
        export.save_target(target, settings.output / "target")
    target.requires_grad_(False)
    if settings.drafter_until > 0:
        plan = settings.plan(_STARTED + settings.drafter_until, settings.drafter_sequences, length=512)
        note("drafter, on the corpus", drafter_training.train(target, drafter, tokens, plan, machine, save, say))
    save()
    if settings.refine_until > 0:
        _refine(target, drafter, tokens, settings, machine, save, note)
    say("trained")


def _refine(
    target: Target,
    drafter: Drafter,
    tokens: Tensor,
    settings: Settings,
    machine: Accelerator,
    save: drafter_training.Save,
    note: Callable[[str, Outcome], None],
) -> None:
    """The drafter's last stage; writing the texts may take half of its time."""
    plan = settings.plan(_STARTED + settings.refine_until, sequences=8, length=256).slower()
    now = time.monotonic()
    writing = replace(plan, ends=now + (plan.ends - now) / 2)
    lessons = refining.write_lessons(target, tokens, settings.written, writing, machine, say)
    if lessons:
        outcome = refining.train(target, drafter, lessons, plan, save, say)
        save()
        count = sum(len(lesson.tokens) for lesson in lessons)
        note(f"drafter, on {count:,} texts that the target wrote", outcome)


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


def _read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / _REPORT).read_text())
    return report


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / _REPORT).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
