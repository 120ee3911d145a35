"""The C++ client: how it is built, and how its cases are run."""

OPTIONS = ("-DTANDEM_CASES=ON", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
BUILD: tuple[tuple[str, ...], ...] = (
    ("cmake", "-S", "clients/cpp", "-B", "clients/cpp/build", *OPTIONS),
    ("cmake", "--build", "clients/cpp/build", "--parallel", "2", "--target", "cases"),
)
CASES: tuple[str, ...] = ("clients/cpp/build/cases",)
UNIX: bool = True
TESTS: tuple[tuple[str, ...], ...] = ()
