"""Python's client, run by the interpreter of the tests from the checkout."""

import sys

BUILD: tuple[tuple[str, ...], ...] = ()
CASES: tuple[str, ...] = (sys.executable, "clients/python/tests/cases.py")
UNIX: bool = True
TESTS: tuple[tuple[str, ...], ...] = ()  # pytest finds them
