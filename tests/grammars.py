"""Vocabularies and grammars for tests."""

import json

from tandem.core.output_format import FormatKind, OutputFormat
from tandem.demo import DEMO_TARGET
from tandem.sampling.grammar import Grammar, compile_grammar
from tandem.sampling.vocabulary import Vocabulary

DEMO_END_TOKENS = frozenset([1, 5])
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def json_schema(schema) -> OutputFormat:
    return OutputFormat(FormatKind.JSON_SCHEMA, json.dumps(schema))


def regex(text) -> OutputFormat:
    return OutputFormat(FormatKind.REGEX, text)


def lark(text) -> OutputFormat:
    return OutputFormat(FormatKind.GRAMMAR, text)


def demo_vocabulary() -> Vocabulary:
    vocabulary = Vocabulary.load(DEMO_TARGET, 4096, DEMO_END_TOKENS)
    assert vocabulary
    return vocabulary


def grammar(output_format, vocabulary, stop_token_ids=DEMO_END_TOKENS) -> Grammar:
    """Of a new sequence."""
    matcher = compile_grammar(output_format, vocabulary)
    assert not matcher.is_error(), matcher.get_error()
    return Grammar(matcher, vocabulary, stop_token_ids)
