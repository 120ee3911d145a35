"""From a request's output format to the grammar of its sequence, with no harm to anybody whatever the format is."""

import asyncio
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Collection

from llguidance import LLMatcher

from tandem.core.errors import InvalidRequest, QueueFull
from tandem.core.output_format import OutputFormat
from tandem.sampling.grammar import Grammar, compile_grammar
from tandem.sampling.vocabulary import Vocabulary

# Together below the two seconds in which every format is answered.
MAX_WAIT_SECONDS = 0.4
MAX_CHECK_SECONDS = 1.5  # the process allows itself less of the processor's time
MAX_PROCESSES = 2
MAX_COMPILED = 64


class GrammarCompiler:
    """Checks formats in processes that can be killed, compiles those that passed, and remembers the last of them."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        """Compiles for `vocabulary`; without one every format is refused."""
        self._vocabulary = vocabulary
        self._places = asyncio.Semaphore(MAX_PROCESSES)
        self._compiled: OrderedDict[OutputFormat, LLMatcher] = OrderedDict()  # latest use last

    async def compile(self, output_format: OutputFormat, stop_token_ids: Collection[int]) -> Grammar:
        """The grammar of a sequence that has no output yet.

        Args:
            output_format: what the client sent.
            stop_token_ids: by which the sequence may end.

        Raises:
            InvalidRequest: the format cannot be compiled, within limits of time and memory.
            QueueFull: the machine is too busy to find out in time.
        """
        if self._vocabulary is None:
            raise InvalidRequest(
                "spec.output_format", "the model's checkpoint has no tokenizer that grammars could use"
            )
        matcher = self._compiled.get(output_format)
        if matcher is None:
            await self._check(output_format)
            matcher = await asyncio.to_thread(compile_grammar, output_format, self._vocabulary)
            if matcher.is_error():
                raise InvalidRequest(output_format.field, str(matcher.get_error()))
            self._compiled[output_format] = matcher
            if len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(output_format)
        return Grammar(matcher, self._vocabulary, stop_token_ids)

    async def _check(self, output_format: OutputFormat) -> None:
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise QueueFull("too many output formats are being checked") from None
        # Goes on where the caller does not wait for it: the place is free when the process has ended.
        checking = asyncio.ensure_future(asyncio.to_thread(ask_process, output_format))
        checking.add_done_callback(lambda _: self._places.release())
        answer = await asyncio.shield(checking)
        if answer is None:
            raise QueueFull("the machine is too busy to check an output format")
        if not answer:
            raise InvalidRequest(output_format.field, "takes too much time or memory to compile; make it simpler")
        error = json.loads(answer)["error"]
        if error:
            raise InvalidRequest(output_format.field, error)


def ask_process(output_format: OutputFormat) -> bytes | None:
    """What the check of a format answers; nothing if its limits ended it, None if it came to neither in time.

    Blocks its thread: the pipes of uvloop's processes have been seen closed before anything was written to them.
    """
    try:
        process = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-m", "tandem.verifier.grammar_check", output_format.kind.value],
            input=output_format.text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=MAX_CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return process.stdout if process.returncode == 0 else b""
