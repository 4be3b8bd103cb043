"""The retry policy of object stores: short, growing waits, for about 10 s in total."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from bandscope_dagster.storage.objects.protocol import ObjectChanged

RETRY_FIRST_WAIT_S = 0.1
RETRY_LONGEST_WAIT_S = 2.0
RETRY_FOR_S = 8.0  # with the last wait and attempt, a lasting fault is reported after about 10 s

T = TypeVar("T")


def with_retries(operation: Callable[[], T], is_transient: Callable[[BaseException], bool]) -> T:
    """Run ``operation``, and repeat it while it fails with a transient error.

    The waits grow, with jitter. After ``RETRY_FOR_S`` seconds the last error is raised. ``operation`` must be safe to
    repeat.
    """
    policy = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential(RETRY_FIRST_WAIT_S, RETRY_LONGEST_WAIT_S) + wait_random(0, RETRY_FIRST_WAIT_S),
        stop=stop_after_delay(RETRY_FOR_S),
        reraise=True,
    )
    return policy(operation)


def read_one_version(read: Callable[[], T]) -> T:
    """Run ``read``, and repeat it from the start if the object is replaced meanwhile."""
    return with_retries(read, lambda error: isinstance(error, ObjectChanged))
