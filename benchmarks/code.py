"""Which code a benchmark measures."""

from services.compile import is_compiled


def how() -> str:
    """Tell whether what every request passes runs compiled, as in the image (`make bench`), or as it stands."""
    return "compiled" if is_compiled() else "interpreted"
