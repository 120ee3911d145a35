"""The client in TypeScript."""

BUILD: tuple[tuple[str, ...], ...] = (
    ("npm", "--prefix", "clients/node", "ci", "--ignore-scripts"),
    ("npm", "--prefix", "clients/node", "run", "build"),
)
CASES: tuple[str, ...] = ("node", "clients/node/build/cases/cases.js")
UNIX: bool = True
TESTS: tuple[tuple[str, ...], ...] = (("npm", "--prefix", "clients/node", "test"),)
