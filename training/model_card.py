"""The model card."""


def render(report: dict[str, object]) -> str:
    """Placeholder."""
    return str(report)
