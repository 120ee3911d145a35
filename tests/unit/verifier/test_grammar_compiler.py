"""Compiled formats are remembered, and never shared between sequences."""

import asyncio
import threading

import pytest

from tandem.core.errors import InvalidRequest, QueueFull
from tandem.sampling.vocabulary import Vocabulary
from tandem.verifier import grammar_compiler
from tandem.verifier.grammar_compiler import GrammarCompiler
from tests.grammars import regex
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

    def ask(output_format):
        checked.append(output_format.text)
        return b'{"error": ""}'

    monkeypatch.setattr(grammar_compiler, "ask_process", ask)
    monkeypatch.setattr(grammar_compiler, "MAX_COMPILED", 2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await compiler.compile(regex(text), {1})
    assert checked == ["a", "b", "c", "b"]


async def test_a_refused_format_is_not_remembered(compiler):
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="column 1"):
            await compiler.compile(regex("(a"), {1})


async def test_a_busy_machine_says_so_and_keeps_no_process(compiler, monkeypatch):
    monkeypatch.setattr(grammar_compiler, "MAX_CHECK_SECONDS", 0.001)
    for number in range(grammar_compiler.MAX_PROCESSES + 1):
        with pytest.raises(QueueFull, match="busy"):
            await compiler.compile(regex("a" * (number + 1)), {1})


async def test_a_caller_that_goes_away_gives_its_place_back_when_the_check_is_over(compiler, monkeypatch):
    go_on, being_checked = threading.Event(), threading.Semaphore(0)

    def slow(output_format):
        being_checked.release()
        assert go_on.wait(30)
        return b'{"error": ""}'

    monkeypatch.setattr(grammar_compiler, "ask_process", slow)
    monkeypatch.setattr(grammar_compiler, "MAX_WAIT_SECONDS", 0.01)
    tasks = [asyncio.create_task(compiler.compile(regex(text), {1})) for text in "ab"]
    for task in tasks:
        assert await asyncio.to_thread(being_checked.acquire, timeout=10)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(QueueFull):
        await compiler.compile(regex("c"), {1})
    go_on.set()
    monkeypatch.setattr(grammar_compiler, "MAX_WAIT_SECONDS", 10)
    assert await compiler.compile(regex("c"), {1})
