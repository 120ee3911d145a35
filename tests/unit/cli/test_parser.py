import argparse
from dataclasses import MISSING, dataclass, fields

import pytest

from tandem.cli.parser import Parser, add_options, load_config, to_arguments
from tandem.cli.settings import CONFIGS
from tandem.core.config import option
from tandem.core.errors import ConfigError


@dataclass(frozen=True)
class Oven:
    name: str = option(help="100% its name")
    degrees: int = option(180, help="heat")
    minutes: float | None = option(None, help="time")
    fan: bool = option(True, help="moves air")
    light: bool = option(False, help="shows the cake")
    mode: str = option("top", help="where heat comes from", choices=["top", "bottom"])


@dataclass(frozen=True)
class Hob:
    degrees: int = option(90, help="heat of the plate")
    plates: int = option(4, help="how many")


def parser_for(*configs, **options):
    parser = Parser(prog="kitchen")
    add_options(parser, *configs, **options)
    return parser


def parse(*argv, configs=(Oven,)):
    return parser_for(*configs).parse_args(argv)


def test_options_fill_the_configuration():
    arguments = parse("--name", "x", "--degrees=7", "--minutes", "1.5", "--no-fan", "--light", "--mode", "bottom")
    assert load_config(Oven, arguments, environment={}) == Oven("x", 7, 1.5, False, True, "bottom")


def test_defaults_and_environment_stand_where_no_option_is_given():
    assert load_config(Oven, parse("--name=x"), environment={"TANDEM_DEGREES": "5"}) == Oven("x", 5)
    assert load_config(Oven, parse("--name=x", "--degrees=6"), environment={"TANDEM_DEGREES": "5"}).degrees == 6


def test_what_is_decided_is_not_the_users():
    arguments = parse("--name=x", "--degrees=6")
    assert load_config(Oven, arguments, {"degrees": "1"}, {"TANDEM_DEGREES": "5"}).degrees == 1


@pytest.mark.parametrize("argv", [["--degrees=hot", "--name=x"], ["--mode=side", "--name=x"], []])
def test_bad_values_name_the_option(argv):
    with pytest.raises(ConfigError, match=r"^--(degrees|mode|name) "):
        load_config(Oven, parse(*argv), environment={})


def test_a_field_of_two_configurations_is_one_option():
    arguments = parse("--name=x", "--degrees=6", configs=(Oven, Hob))
    assert load_config(Oven, arguments, environment={}).degrees == load_config(Hob, arguments, environment={}).degrees


def test_fields_without_an_option(capsys):
    parser = parser_for(Oven, Hob, without={"degrees"})
    with pytest.raises(SystemExit):
        parser.parse_args(["--degrees=1"])


@pytest.mark.parametrize("config", CONFIGS)
def test_help_shows_every_option_default_and_variable(config):
    words = " ".join(parser_for(config).format_help().split())
    for declared in fields(config):
        assert f"--{declared.name.replace('_', '-')}" in words
        assert f"env TANDEM_{declared.name.upper()}]" in words.replace("- ", "-")
        if declared.default not in (MISSING, None, ""):
            shown = str(declared.default).lower() if isinstance(declared.default, bool) else str(declared.default)
            assert f"[default: {shown};" in words


def test_arguments_make_the_same_configuration_again():
    for oven in (Oven("x"), Oven("-y", 1, 2.5, False, True, "bottom")):
        assert load_config(Oven, parse(*to_arguments(oven)), environment={}) == oven


@pytest.mark.parametrize("argv", [["--deg=1"], ["--nothing"], ["more"]])
def test_a_complaint_is_one_line_and_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("kitchen: error: ") and captured.err.count("\n") == 1 and not captured.out


def test_no_two_configurations_mean_different_types_by_one_name():
    """One name is one variable of the environment."""
    from tandem.core.config import value_type

    kinds = {}
    for config in CONFIGS:
        for declared in fields(config):
            assert kinds.setdefault(declared.name, value_type(config, declared.name)) is value_type(
                config, declared.name
            )


def test_options_are_absent_from_the_arguments_unless_given():
    assert parse() == argparse.Namespace()
