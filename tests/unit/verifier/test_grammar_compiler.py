"""Compiled formats are remembered, and never shared between sequences."""

import asyncio

import pytest

from tandem.core.errors import InvalidRequest, QueueFull
from tandem.sampling.vocabulary import Vocabulary
from tandem.verifier import grammar_compiler
from tandem.verifier.grammar_compiler import GrammarCompiler
from tests.grammars import json_schema, regex
from tests.unit.gateway.conftest import byte_level_tokenizer, save_checkpoint


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@pytest.fixture
def compiler(tokenizer, tmp_path):
    folder = save_checkpoint(tmp_path / "target", tokenizer)
    return GrammarCompiler(Vocabulary.load(folder, tokenizer.get_vocab_size(), {1, 5}))


async def test_two_sequences_of_one_format_do_not_see_each_other(compiler, tokenizer):
    h, o = (tokenizer.encode(text, add_special_tokens=False).ids[0] for text in "ho")
    one, other = [await compiler.compile(regex("ho"), {1}) for _ in range(2)]
    assert one.accept(h)
    assert other.num_possible([o]) == 0 and other.num_possible([h, o]) == 2
    assert one.accept(o) and one.is_complete and not other.is_complete


async def test_the_formats_used_last_are_remembered(compiler, monkeypatch):
    checked = []

    async def ask(output_format):
        checked.append(output_format.text)
        return b'{"error": ""}'

    monkeypatch.setattr(grammar_compiler, "_ask_process", ask)
    monkeypatch.setattr(grammar_compiler, "MAX_COMPILED", 2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await compiler.compile(regex(text), {1})
    assert checked == ["a", "b", "c", "b"]


async def test_a_refused_format_is_not_remembered(compiler):
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="column 1"):
            await compiler.compile(regex("(a"), {1})


async def test_a_check_ends_with_whoever_waited_for_it(compiler, monkeypatch):
    """A caller that goes away, and a machine that is too busy, leave no process behind."""
    started, spawn = [], asyncio.create_subprocess_exec

    async def watched(*arguments, **options):
        started.append(await spawn(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    task = asyncio.create_task(compiler.compile(json_schema({"type": "string"}), {1}))
    while not started:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.setattr(grammar_compiler, "MAX_CHECK_SECONDS", 0.001)
    with pytest.raises(QueueFull, match="busy"):
        await compiler.compile(json_schema({"type": "string"}), {1})
    assert len(started) == 2 and all(process.returncode is not None for process in started)
