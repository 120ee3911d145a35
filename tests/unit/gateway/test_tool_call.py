import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.gateway.tool_call import MalformedCall, parse_tool_call

QUOTE = '<|"|>'


def parse(written):
    """A call as it is written, quotes spelled."""
    return parse_tool_call(written.split(QUOTE))


def write(value):
    """The notation of the checkpoint's template."""
    match value:
        case str():
            return f"{QUOTE}{value}{QUOTE}"
        case dict():
            return "{" + ",".join(f"{key}:{write(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(write, value)) + "]"
        case _:
            return json.dumps(value)


def test_every_kind_of_value():
    call = parse(
        'call:weather.at{city:<|"|>São "Paulo"\\\n{,}<|"|>,days:-2,limit:1.50,big:12345678901234567890,far:2e3,'
        'raw:true,no:false,none:null,never:None,tags:[<|"|>a<|"|>,[1,{x:<|"|><|"|>}],[]],deep:{a:{b:{}}}}'
    )
    assert call.name == "weather.at"
    assert json.loads(call.arguments_json) == {
        "city": 'São "Paulo"\\\n{,}',
        "days": -2,
        "limit": 1.5,
        "big": 12345678901234567890,
        "far": 2000.0,
        "raw": True,
        "no": False,
        "none": None,
        "never": None,
        "tags": ["a", [1, {"x": ""}], []],
        "deep": {"a": {"b": {}}},
    }
    assert '"limit":1.50' in call.arguments_json, "numbers stay as they are written"


def test_without_arguments():
    assert parse("call:now{}").arguments_json == "{}"


def test_spaces_between_and_bare_or_quoted_keys():
    call = parse('call:f{ a : 1 ,\n <|"|>b c<|"|> : [ 2 , <|"|> 3 <|"|> ] , unit: celsius }')
    assert json.loads(call.arguments_json) == {"a": 1, "b c": [2, " 3 "], "unit": "celsius"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), VALUES.filter(lambda v: QUOTE not in str(v))))
def test_what_a_template_writes_is_read_back(arguments):
    assert json.loads(parse(f"call:f{write(arguments)}").arguments_json) == arguments


@pytest.mark.parametrize(
    "written",
    [
        "",
        "weather{}",
        "call:{}",
        "call:we ather{}",
        "call:f",
        "call:f{",
        "call:f{a}",
        "call:f{a:}",
        "call:f{a:1",
        "call:f{a:1,}",
        "call:f{,}",
        "call:f{a:1 b:2}",
        "call:f{a:[1}",
        "call:f{a:[1,]}",
        "call:f{a:10:30}",
        "call:f{}}",
        "call:f{} and more",
        'call:f{a:<|"|>open}',
        'call:f{a:b<|"|>c<|"|>}',
        'call:f{a:<|"|>b<|"|>c}',
        'call:<|"|>f<|"|>{}',
        'call:f<|"|>{<|"|>a:1}',
        "call:f{a:" + "[" * 32 + "]" * 32 + "}",
    ],
)
def test_what_is_no_call(written):
    with pytest.raises(MalformedCall):
        parse(written)


def test_as_deep_as_may_be_sent_back():
    deep = "call:f{a:" + "[" * 31 + "]" * 31 + "}"
    assert parse(deep).arguments_json.count("[") == 31
