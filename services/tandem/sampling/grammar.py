"""A compiled output format, and how far into it a sequence's output has come."""

import json
import logging
from collections.abc import Collection, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from tandem.core.output_format import FormatKind, OutputFormat
from tandem.sampling.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# The library's bounds on what a mask may cost, lowered until the worst is some ten milliseconds, for masks are made
# between two steps; and on what a sequence may keep. One whose grammar exceeds them ends as a fault.
LIMITS = LLParserLimits(
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
# A model that is made to write JSON may fill its output with white space: more than this indents nothing.
JSON_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"

# By default, where only one text can follow, the library allows none but the tokens that the tokenizer makes of it, and
# those of a "<turn|>" are one special token. Every token is allowed here whose bytes fit.
NO_FORCING = '%llguidance {"no_forcing": true}'


def library_grammar(kind: FormatKind, text: str) -> str:
    """A format as the grammar library wants it.

    Raises:
        ValueError: a JSON Schema that is no JSON.
    """
    match kind:
        case FormatKind.JSON_SCHEMA:
            made = json.loads(
                LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": JSON_WHITE_SPACE})
            )
            value = {"name": "value", "json_schema": made["grammars"][0]["json_schema"]}
            return json.dumps({"grammars": [{"lark_grammar": f"start: @value\n{NO_FORCING}"}, value]})
        case FormatKind.REGEX:
            grammar: str = json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
            return f"{grammar}\n{NO_FORCING}"
        case FormatKind.GRAMMAR:
            return f"{text}\n{NO_FORCING}"  # last, so that lines keep their numbers


def compile_grammar(output_format: OutputFormat, vocabulary: Vocabulary) -> LLMatcher:
    """A matcher at the beginning of a text. Other threads run meanwhile.

    Only for formats that have been checked in a process of their own: some take the library forever. An error is the
    matcher's state.
    """
    grammar = library_grammar(output_format.kind, output_format.text)
    return LLMatcher(vocabulary.library, grammar, log_level=0, limits=LIMITS)


class Grammar:
    """The state of one sequence: a `TokenGrammar` that also says which tokens may come next, to `GrammarMasks`."""

    ends: np.ndarray  # [W] int32, a bit a token: the stop tokens that are no text, allowed where the text may end

    def __init__(self, start: LLMatcher, vocabulary: Vocabulary, stop_token_ids: Collection[int]) -> None:
        """Starts at the beginning.

        Args:
            start: a matcher at the beginning of a text; may be shared, and is only copied.
            vocabulary: that it was compiled for.
            stop_token_ids: of the sequence. Those that write text are text to the grammar.
        """
        self.matcher = start.deep_copy()
        self.vocabulary = vocabulary
        self.ends = vocabulary.mask(stop_token_ids) & ~vocabulary.text
        self._start = start
        self._accepted: list[int] = []
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        """Whether the text matches, and nothing can follow."""
        return self._is_complete

    def accept(self, token_id: int) -> bool:
        """Takes the next token of the output; False: no text with it can match, or the library gave up."""
        self._recover()
        if not self.matcher.consume_token(token_id):
            logger.error("a grammar ends its sequence: %s", self.matcher.get_error())
            return False
        self._accepted.append(token_id)
        self._is_complete = self.matcher.is_accepting() and not self._can_go_on()
        return True

    def num_possible(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens, from the first on, could follow."""
        possible: int = self.matcher.validate_tokens(list(token_ids))
        return 0 if self._recover() else possible

    def _recover(self) -> bool:
        """Comes back from drafts that led where the library gives up: they must not cost the text anything."""
        if not self.matcher.is_error():
            return False
        self.matcher = self._start.deep_copy()
        self.matcher.consume_tokens(self._accepted)
        return True

    def _can_go_on(self) -> bool:
        words = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.int32)
        return bool((words[: len(self.vocabulary.text)] & self.vocabulary.text).any())
