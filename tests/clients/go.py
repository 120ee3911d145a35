"""The client in Go."""

BUILD: tuple[tuple[str, ...], ...] = (("make", "-C", "clients/go", "cases"),)
CASES: tuple[str, ...] = ("clients/go/build/cases",)
UNIX: bool = True
TESTS: tuple[tuple[str, ...], ...] = (("make", "-C", "clients/go", "check"),)
