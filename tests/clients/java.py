"""The Java client: how it is built, and how its cases are run."""

BUILD = (("make", "-C", "clients/java", "cases"),)
CASES = (
    "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "@clients/java/build/arguments", "dev.tandem.client.Cases",
)  # fmt: skip
UNIX = True
