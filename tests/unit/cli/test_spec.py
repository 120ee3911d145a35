import argparse

import pytest

from tandem.cli.generation_config import GenerationConfig
from tandem.cli.parser import Parser
from tandem.cli.spec import add_lists, make_spec
from tandem.core.errors import ConfigError
from tandem.v1 import types_pb2


def lists(*argv):
    parser = Parser(prog="x")
    add_lists(parser)
    return parser.parse_args(argv)


def test_what_is_not_given_is_left_to_the_server():
    made = make_spec(GenerationConfig(), lists())
    assert not any(made.sampling.HasField(name) for name in ("temperature", "top_p", "top_k", "seed", "min_p"))
    assert not made.speculation.HasField("num_speculative_tokens")
    assert made.stopping == types_pb2.StoppingOptions(max_tokens=256)


def test_zero_is_not_the_same_as_absent():
    made = make_spec(GenerationConfig(temperature=0.0, seed=0, top_k=0, num_speculative_tokens=0), lists())
    assert made.sampling.HasField("temperature") and made.sampling.HasField("seed")
    assert made.speculation.HasField("num_speculative_tokens")


def test_every_field_of_the_request_can_be_set():
    config = GenerationConfig(
        model="m",
        max_tokens=9,
        min_tokens=2,
        temperature=0.5,
        top_p=0.75,
        top_k=3,
        min_p=0.25,
        seed=1 << 62,
        repetition_penalty=1.5,
        presence_penalty=-0.5,
        frequency_penalty=0.5,
        ignore_eos=True,
        include_stop=True,
        num_speculative_tokens=2,
        cache_salt="s",
    )
    made = make_spec(
        config, lists("--stop=a", "--stop", "\n\n", "--stop-token-id=7", "--logit-bias=5=-1.5", "--logit-bias=6=2")
    )
    assert made.model == "m" and made.cache_salt == "s"
    for message in (made.sampling, made.stopping, made.speculation):
        assert {name.name for name, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert list(made.stopping.stop) == ["a", "\n\n"]
    assert dict(made.sampling.logit_bias) == {5: -1.5, 6: 2.0}


def test_an_output_format_comes_from_a_file_or_the_line(tmp_path):
    file = tmp_path / "format"
    file.write_text("é: {}")
    assert make_spec(GenerationConfig(json_schema=str(file)), lists()).output_format.json_schema == "é: {}"
    assert make_spec(GenerationConfig(grammar=str(file)), lists()).output_format.grammar == "é: {}"
    assert make_spec(GenerationConfig(regex="a+"), lists()).output_format.regex == "a+"
    assert not make_spec(GenerationConfig(), lists()).HasField("output_format")


def test_output_formats_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="exclude each other"):
        make_spec(GenerationConfig(regex="a", grammar="b"), lists())
    with pytest.raises(ConfigError, match="--json-schema .*nowhere"):
        make_spec(GenerationConfig(json_schema=str(tmp_path / "nowhere")), lists())
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="--grammar .*UTF-8"):
        make_spec(GenerationConfig(grammar=str(tmp_path / "binary")), lists())


def test_numbers_that_no_message_carries():
    with pytest.raises(ConfigError, match="out of range"):
        make_spec(GenerationConfig(top_k=1 << 40), lists())


@pytest.mark.parametrize("argv", [["--logit-bias=5"], ["--logit-bias=x=1"], ["--stop-token-id=x"]])
def test_lists_that_are_none(argv, capsys):
    with pytest.raises(SystemExit):
        lists(*argv)


def test_the_arguments_without_lists_are_complete():
    assert lists() == argparse.Namespace(stop=[], stop_token_id=[], logit_bias=[])
