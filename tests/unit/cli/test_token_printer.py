import io

import pytest

from tandem.cli.token_printer import TokenPrinter
from tandem.v1.types_pb2 import OUTPUT_PART_CONTROL, OUTPUT_PART_TEXT, OUTPUT_PART_THOUGHT, Delta, Token


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def delta(text, *tokens):
    return Delta(text=text, tokens=[Token(text=text, drafted=drafted) for text, drafted in tokens])


def printed(stream, *deltas):
    printer = TokenPrinter(stream)
    for each in deltas:
        printer.write(each)
    printer.finish()
    return stream.getvalue()


def test_piped_text_is_plain_and_as_it_came():
    assert printed(io.StringIO(), delta("one", ("one", True)), delta(" \x1b two")) == "one \x1b two\n"


def test_a_terminal_shows_which_tokens_were_drafted():
    shown = printed(Terminal(), delta("one two\n three", ("one", False), (" two\n", True), (" three", True)))
    assert shown == "one\x1b[32m two\x1b[0m\n\x1b[32m three\x1b[0m\n"


def test_text_that_no_token_told_is_not_lost():
    assert printed(Terminal(), delta("one tw", ("one", False)), delta("o")) == "one two\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert printed(Terminal(), delta("one", ("one", True))) == "one\n"
    assert not TokenPrinter(Terminal()).needs_tokens


def test_a_terminal_gets_no_control_characters():
    assert printed(Terminal(), delta("a\x1b[2J\tb", ("a\x1b[2J\tb", False))) == "a\ufffd[2J\tb\n"


def test_a_line_that_ended_is_not_ended_twice():
    assert printed(io.StringIO(), delta("one\n")) == "one\n"
    assert printed(io.StringIO()) == ""


def test_thoughts_are_dimmed_on_lines_of_their_own():
    deltas = [
        Delta(thought="on", tokens=[Token(text="thought\n", part=OUTPUT_PART_CONTROL)]),
        Delta(thought="e\ntwo\x1b", tokens=[Token(text="e\ntwo\x1b", part=OUTPUT_PART_THOUGHT)]),
        Delta(text="three", tokens=[Token(text="three", part=OUTPUT_PART_TEXT)]),
    ]
    shown = printed(Terminal(), *deltas)
    assert shown == "\x1b[2mon\x1b[0m\x1b[2me\x1b[0m\n\x1b[2mtwo\ufffd\x1b[0m\nthree\n"
    assert printed(io.StringIO(), *deltas) == "three\n", "piped output is the text alone"
    assert printed(Terminal(), *deltas[:2]).endswith("\n")
