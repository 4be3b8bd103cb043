"""The size of a test with a long form: examples of a property test, kills, songs, fuzzed inputs."""

from hypothesis import settings


def quick_or_long(quick: int, *, long: int) -> int:
    """``long`` with ``pytest --long``, else ``quick``."""
    return long if settings.get_current_profile_name() == "long" else quick
