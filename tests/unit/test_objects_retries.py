"""The retry policy: transient faults are repeated with growing waits, other faults are raised at once."""

import time

import pytest

from bandscope_dagster.storage.objects.protocol import ObjectChanged
from bandscope_dagster.storage.objects.retries import read_one_version, with_retries


def test_a_transient_fault_is_retried_until_it_passes():
    calls = []

    def operation() -> str:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ConnectionResetError("by peer")
        return "done"

    assert with_retries(operation, lambda error: isinstance(error, ConnectionError)) == "done"
    first, second, third = calls
    assert second - first >= 0.1
    assert third - second > 0.15, "the waits grow"


def test_any_other_fault_is_raised_at_once():
    calls = []

    def operation() -> None:
        calls.append(None)
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        with_retries(operation, lambda error: isinstance(error, ConnectionError))
    assert len(calls) == 1


def test_an_object_that_is_replaced_while_it_is_read_is_read_again():
    versions = iter([ObjectChanged("replaced"), "new"])

    def read() -> str:
        found = next(versions)
        if isinstance(found, Exception):
            raise found
        return found

    assert read_one_version(read) == "new"
