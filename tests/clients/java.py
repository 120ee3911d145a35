"""The Java client: how it is built, and how its cases are run."""

BUILD = (("make", "-C", "clients/java", "cases"),)
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
CASES = ("java", *QUICK_START, "@clients/java/build/arguments", "dev.tandem.client.Cases")
UNIX = True
