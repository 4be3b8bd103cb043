"""The number of examples of a slow property test."""

from hypothesis import settings


def examples(quick: int, *, long: int) -> int:
    """``long`` with ``pytest --long``, else ``quick``. Hypothesis draws new examples in every run."""
    return long if settings.get_current_profile_name() == "long" else quick
