"""What the check of a format says, and that it says it in time."""

import json
import re
import subprocess
import sys
import time

import pytest

from tandem.core.output_format import FormatKind, OutputFormat
from tandem.verifier.grammar_check import find_error
from tests.grammars import PERSON, json_schema, lark, regex

DEEP = 30000
HARD_PATTERNS = {
    "allOf": [{"type": "string", "pattern": f"(a|b)*{'ab'[i % 2]}(a|b){{{i}}}$"} for i in range(20)],
}


@pytest.mark.parametrize(
    "output_format",
    [
        json_schema(PERSON),
        json_schema({"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}),
        regex(r"\d{4}-\d\d-\d\d"),
        regex("a*"),
        lark('start: "(" start ")" | /[a-z]+/'),
        lark('start: "<[5]>" | "<turn|>"'),
    ],
)
def test_a_good_format_has_no_error(output_format):
    assert find_error(output_format) == ""


@pytest.mark.parametrize(
    ("output_format", "error"),
    [
        (regex("ab[a-"), "column 3: unclosed character class"),
        (regex("(?=a)b"), "column 1: look-around"),
        (regex(r"a\b"), "lookarounds not supported"),
        (regex("x{0}"), "only the empty text"),
        (lark('start: "a"\nrest: ['), "line 2, column 8: Expected"),
        (lark("start: rest"), "line 1, column 8: unknown name"),
        (lark("start: /a(b/"), "line 1, column 8: invalid regex .* unclosed group"),
        (lark("start: start"), "no text matches"),
        (lark('start: "a" <turn|>'), "cannot name tokens"),
        (lark("start: <[5]>"), "cannot name tokens"),
        (lark("start: <[^5]>"), "cannot name tokens"),
        (json_schema([1]), "must be a JSON object"),
        (json_schema({"type": "objec"}), r"Invalid type: objec \(at \$\)"),
        (
            json_schema({"properties": {"a": {"type": "array", "items": {"uniqueItems": True}}}}),
            r'uniqueItems.*\(at \$\.properties\["a"\]\.items\)',
        ),
        (json_schema({"anyOf": [{"type": "string"}, {"pattern": "[a"}]}), r"\(at \$\.anyOf\[1\]\)"),
        (
            json_schema({"$defs": {"x": {}}, "properties": {"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#/$defs/y"}}}),
            r'does not exist \(at \$\.properties\["b"\]\)',
        ),
        (json_schema({"$ref": "https://example.com/schema"}), "not present"),
    ],
    ids=str,
)
def test_a_bad_format_is_told_with_its_place(output_format, error):
    found = find_error(output_format)
    assert re.search(error, found), found
    assert "\n" not in found


def test_the_place_is_found_in_a_schema_that_grows_when_it_is_taken_apart():
    definitions = {f"d{i}": {"enum": ["é" * 100]} for i in range(250)}
    schema = {"$defs": definitions | {"wrong": {"type": "x"}}, "$ref": "#/$defs/wrong"}
    text = json.dumps(schema, ensure_ascii=False)
    assert len(text.encode()) < 65536 < len(json.dumps(schema))
    assert find_error(OutputFormat(FormatKind.JSON_SCHEMA, text)).startswith("Invalid type: x (at $")


def test_text_that_is_no_json_is_told_with_line_and_column():
    assert "line 2 column 9" in find_error(OutputFormat(FormatKind.JSON_SCHEMA, '{\n"type": object}'))
    assert "NaN" in find_error(OutputFormat(FormatKind.JSON_SCHEMA, '{"const": NaN}'))


@pytest.mark.parametrize(
    "output_format",
    [
        json_schema({"type": "integer", "multipleOf": 1000003}),
        json_schema(HARD_PATTERNS),
        regex("(" * DEEP + "a" + ")" * DEEP),
        lark("start: " + "(" * DEEP + '"a"' + ")" * DEEP),
        lark("start: R0\n" + "".join(f"R{i}: R{i + 1} R{i + 1}\n" for i in range(60)) + 'R60: "a"\n'),
        lark("start: " + "[" * DEEP),
    ],
    ids=["multiple", "patterns", "parentheses", "grammar", "doubling", "brackets"],
)
def test_a_hostile_format_is_over_in_time(output_format):
    """The process ends without an answer, or with an error: in a second of its own, and here with a wide margin."""
    started_at = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "tandem.verifier.grammar_check", output_format.kind.value],
        input=output_format.text.encode(),
        capture_output=True,
        timeout=30,
    )
    assert time.monotonic() - started_at < 10
    assert process.stdout == b"" if process.returncode else json.loads(process.stdout)["error"]
