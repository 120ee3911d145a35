"""`python -m tandem.verifier.grammar_check KIND`: whether the format on stdin can be compiled; the answer to stdout.

A process of its own, for some formats keep the grammar library busy for hours, and a thread cannot be killed: the
kernel ends this process when its time or memory is used up. It then answers nothing.
"""

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from tandem.core.output_format import FormatKind, OutputFormat
from tandem.sampling.grammar import LIMITS, library_grammar

MAX_CPU_SECONDS = 0.8
MAX_MEMORY_BYTES = 64 << 20  # of the library; every running sequence has a copy of what it makes
NICENESS = 5  # those who generate come first
MAX_SEARCH_SECONDS = 0.3  # of that, for the subschema that is wrong
MAX_CHARACTERS = 300
NUM_BYTES = 256

# Where a JSON Schema has schemas: as a value, as the values of an object, in a list.
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")


@dataclass(frozen=True)
class _Bytes:
    """A tokenizer with a token a byte and one to end with: whether a format compiles does not depend on more."""

    eos_token_id = NUM_BYTES
    bos_token_id = None
    special_token_ids = (NUM_BYTES,)
    tokens = (*(bytes([byte]) for byte in range(NUM_BYTES)), b"<end>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def find_error(output_format: OutputFormat) -> str:
    """What is wrong with a format, and where; empty if nothing is."""
    schema: Any = None
    if output_format.kind is FormatKind.JSON_SCHEMA:
        try:
            schema = json.loads(output_format.text, parse_constant=_refuse_constant)
        except RecursionError:
            return "is nested too deeply"
        except ValueError as error:
            return f"not JSON: {error}"
        if not isinstance(schema, dict):
            return "must be a JSON object"
    message = _library_error(output_format.kind, output_format.text)
    if not message:
        return ""
    if output_format.kind is FormatKind.JSON_SCHEMA:
        return f"{_one_line(message)} (at {_path(schema, message)})"
    return _with_position(output_format.kind, message)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _library_error(kind: FormatKind, text: str) -> str:
    try:
        grammar = library_grammar(kind, text)
    except (ValueError, RecursionError) as error:
        return str(error)
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, None, limits=LIMITS)
    if is_error:
        return str(messages[0])
    # It warns that it cannot validate <...> without a tokenizer: token ids and special tokens, by which a text would
    # leave its grammar.
    if any("no tokenizer" in message for message in messages):
        return "cannot name tokens: a grammar is about text"
    matcher = LLMatcher(LLTokenizer(TokenizerWrapper(_Bytes())), grammar, log_level=0, limits=LIMITS)
    can_begin = any(matcher.compute_bitmask()[: NUM_BYTES // 8])
    if not can_begin and matcher.is_accepting():
        return "only the empty text matches"
    if not can_begin or matcher.is_error():
        message = str(matcher.get_error())
        return message if message and not message.startswith("NoExtension") else "no text matches"
    return ""


def _with_position(kind: FormatKind, message: str) -> str:
    """The library's message in one line that begins with the place, if it names one."""
    if kind is FormatKind.REGEX:
        # The pattern, carets below the place, the error.
        found = re.search(r"regex parse error:\n {4}.*\n {4}( *)\^+\nerror: (.*)", message)
        if found:
            return f"column {len(found[1]) + 1}: {found[2]}"
        # It stands on the first line of a grammar, whose own places mean nothing to the client.
        return _one_line(message.partition("(in regex): ")[2].partition(" in regex /")[0] or message)
    found = re.match(r"(?:at )?(\d+)\((\d+)\): (.*)", message)
    if not found:
        return _one_line(message)
    reason = re.search(r"^error: (.*)", message, re.MULTILINE)  # of a regular expression inside
    return f"line {found[1]}, column {found[2]}: {_one_line(found[3])}{' ' + reason[1] if reason else ''}"


def _one_line(message: str) -> str:
    return " ".join(message.split())[:MAX_CHARACTERS]


def _path(schema: Any, message: str) -> str:
    """The JSON path of the smallest subschema that the library refuses with the same words."""
    path, found = "$", True
    ends_at = time.process_time() + MAX_SEARCH_SECONDS
    definitions = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    while found:
        found = False
        for step, subschema in _subschemas(schema):
            if time.process_time() > ends_at:
                return path
            alone = {**definitions, **subschema} if isinstance(subschema, dict) else subschema
            if _library_error(FormatKind.JSON_SCHEMA, json.dumps(alone)) == message:
                path, schema, found = path + step, subschema, True
                break
    return path


def _subschemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas right inside a schema, each with its step of a JSON path."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in _SCHEMA_MAPS and isinstance(value, dict):
            yield from ((f".{name}[{json.dumps(key)}]", subschema) for key, subschema in value.items())
        elif name in _SCHEMA_LISTS and isinstance(value, list):
            yield from ((f".{name}[{index}]", subschema) for index, subschema in enumerate(value))
        elif name in _SCHEMAS:
            yield f".{name}", value


def _bound() -> None:
    """From now on the kernel ends this process when it takes too much."""
    os.nice(NICENESS)
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    max_bytes = num_pages * resource.getpagesize() + MAX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)  # its signal ends whoever has not asked for it


if __name__ == "__main__":
    _bound()
    answer = find_error(OutputFormat(FormatKind(sys.argv[1]), sys.stdin.buffer.read().decode()))
    sys.stdout.write(json.dumps({"error": answer}))
