"""The Java client: how it is built, and how its cases are run."""

BUILD: tuple[tuple[str, ...], ...] = (("make", "-C", "clients/java", "cases"),)
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
CASES: tuple[str, ...] = ("java", *QUICK_START, "@clients/java/build/arguments", "dev.tandem.client.Cases")
UNIX: bool = True
TESTS: tuple[tuple[str, ...], ...] = ()
