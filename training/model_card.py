"""The model card, from the report of a training run and its measurements."""

from collections import defaultdict
from typing import Any

from training.shapes import DRAFTER, TARGET, Shape
from training.sources import HELD_OUT, SOURCES

_CARD = """\
# The demo pair

A small Gemma 4 target and its MTP drafter, trained from nothing on Python source code, so that Tandem can be tried and
tested without a download. Both are in Hugging Face's format (bfloat16) and load in Tandem and in transformers 5.17.

## What it is for, and what it is not

It shows speculative decoding at work: the target is deep and narrow, so that a step of it costs much more than a draft.
It is a toy. It continues Python code recognisably, repeats itself under greedy decoding, makes up names, and its
programs do not work. It follows no instructions (the chat template is there so that conversations can be tried, not so
that they make sense), and it was trained on texts of 1,024 tokens: expect nothing of what it writes further out. A
prompt should end inside a line or at a line's last character, not with the newline: the tokenizer joins a newline to
the next line's indentation, and after a lone one the target expects the end of a file.

## Shapes

| | target | drafter |
|---|---|---|
{shapes}

The tokenizer is a byte-level BPE with {vocabulary:,} entries, Gemma's special tokens first; every UTF-8 text
round-trips. The drafter has no keys or values of its own: it reads those of the target's last sliding and last full
layer.

## Figures

Held-out loss: **{loss:.3f} nats a token** over {held_out_tokens:,} tokens of {held_out_files} files that were
kept out of the training. Some of them share passages with files of the corpus; the prompts below were chosen where
nothing is shared.

Acceptance length (tokens a round: accepted drafts and the one that the target adds), after {prompts} prompts from the
held-out files (`heldout_prompts.json`), {emitted} tokens each, float32 on a CPU, by the training code's own
evaluation. Sampling is with top-k 64, top-p 0.95, target and drafter under the same noise.

| temperature | drafts | all rounds | mean of prompts | median | lowest | share of rounds accepting draft 1, 2, … |
|---|---|---|---|---|---|---|
{acceptance}

## How it was trained

Master weights are float32; a GPU computes in bfloat16, compiled. Seconds are of training alone, without compiling.

| stage | on | steps | tokens read | seconds |
|---|---|---|---|---|
{stages}

The target learned to predict the next token of the corpus. The drafter then learned, with the target frozen, to say
what the target will say: at every position of a text at once, five drafts unrolled, each fed the text's next token and
the drafter's own hidden row, against the target's choice and its whole distribution; drafts count in full only while
the text is what the target itself would have written. {refined}
Matrices were stepped by orthogonalised momentum (Muon), the rest by Adam.

To repeat it: `make demo-model`, on a GPU when there is one. Times differ between machines, so that the weights do too.

## What it was trained on

{corpus_tokens:,} tokens: the Python files of CPython's standard library (PSF-2.0) and of the packages below, each under
a permissive licence and in the release named; without tests, vendored copies and tables, no file twice. Each package's
licence file is in that release. The held-out files come from the same packages, and the held-out prompts quote them.

{sources}

Held out: {held_out}.

The weights are under Tandem's own licence (Apache-2.0).

## What it writes

Greedy continuations of the first of its held-out prompts, as they come.

{samples}
"""

_REFINED = """\
Last it learned the same on texts that the target wrote after passages of the
corpus, two in three greedy, the others sampled: such texts are what a drafter meets when it serves."""
_UNREFINED = """\
It was not trained on texts that the target wrote, though
the training can do that too."""


def render(report: dict[str, Any]) -> str:
    """The model card as Markdown."""
    figures = report["acceptance"]
    return _CARD.format(
        shapes=_shapes(report),
        vocabulary=TARGET.vocabulary,
        loss=report["held_out_loss"],
        held_out_tokens=report["held_out_tokens"],
        held_out_files=len(HELD_OUT),
        prompts=figures[0]["prompts"],
        emitted=figures[0]["emitted"],
        acceptance="\n".join(map(_acceptance_row, figures)),
        stages=_stages(report),
        refined=_REFINED if any("wrote" in stage["name"] for stage in report["stages"]) else _UNREFINED,
        corpus_tokens=report["corpus_tokens"],
        sources=_sources(),
        held_out=", ".join(f"`{name}`" for name in sorted(HELD_OUT)),
        samples="\n".join(map(_sample, report["samples"])),
    )


def _shapes(report: dict[str, Any]) -> str:
    def row(name: str, of: str) -> str:
        values = (getattr(shape, of) for shape in (TARGET, DRAFTER))
        return f"| {name} | {' | '.join('none' if value is None else str(value) for value in values)} |"

    def kinds(shape: Shape) -> str:
        full = sum(map(shape.is_full, range(shape.layers)))
        return f"{shape.layers} ({shape.layers - full} sliding, {full} full)"

    parameters = (report["target_parameters"], report["drafter_parameters"])
    return "\n".join(
        [
            "| parameters | {:,} | {:,} |".format(*parameters),
            f"| layers | {kinds(TARGET)} | {kinds(DRAFTER)} |",
            row("hidden size", "hidden"),
            row("feed-forward size", "intermediate"),
            row("query heads", "heads"),
            row("key heads, sliding", "kv_heads"),
            row("key heads, full", "global_kv_heads"),
            row("head size, sliding", "head_size"),
            row("head size, full", "global_head_size"),
            row("window", "window"),
            row("logit softcap", "softcap"),
        ]
    )


def _acceptance_row(figure: dict[str, Any]) -> str:
    places = " ".join(f"{share:.2f}" for share in figure["by_place"])
    whole = 1.0 + sum(figure["by_place"])
    lengths = f"{whole:.2f} | **{figure['mean']:.2f}** | {figure['median']:.2f} | {min(figure['lengths']):.2f}"
    return f"| {figure['temperature']} | {figure['drafts']} | {lengths} | {places} |"


def _stages(report: dict[str, Any]) -> str:
    return "\n".join(
        "| {name} | {device} | {steps:,} | {tokens:,} | {seconds:.0f} |".format(**stage) for stage in report["stages"]
    )


def _sources() -> str:
    by_licence: dict[str, list[str]] = defaultdict(list)
    for source in SOURCES:
        by_licence[source.licence].append(f"{source.name} {source.version}")
    return "\n".join(f"- {licence}: {', '.join(names)}" for licence, names in sorted(by_licence.items()))


def _sample(sample: dict[str, str]) -> str:
    return f"After\n\n{_quoted(sample['prompt'])}\n\nit writes\n\n{_quoted(sample['continuation'])}\n"


def _quoted(code: str) -> str:
    return "\n".join("    " + line if line.strip() else "" for line in code.strip("\n").splitlines())
