"""Keys of objects: no key leaves the store's folder."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.storage.objects.keys import check_key, fault_of_key, is_listed


@given(st.text())
def test_a_checked_key_never_leaves_its_folder(key: str):
    try:
        check_key(key)
    except ValueError:
        return
    assert os.path.normpath(key) == key
    assert not os.path.isabs(key)
    assert not key.startswith("..")


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "it has an empty segment"),
        ("/a", "it has an empty segment"),
        ("a/", "it has an empty segment"),
        ("a//b", "it has an empty segment"),
        (".a", "a segment starts with a dot"),
        ("a/.b", "a segment starts with a dot"),
        ("a/../b", "a segment starts with a dot"),
        ("a\nb", "it has a control character"),
        ("a\udcffb", "it is not UTF-8"),
        ("é" * 512, None),  # 1,024 bytes
        ("é" * 512 + "a", "it is longer than 1024 bytes"),
        ("a.b/c.wav", None),
    ],
)
def test_each_fault_of_a_key_is_named(key: str, fault: str | None):
    assert fault_of_key(key) == fault


@pytest.mark.parametrize(
    ("key", "listed", "with_any_name"),
    [
        ("a/b.wav", True, True),
        ("a\nb", False, True),
        (".a", False, False),
        ("a/.b", False, False),
        ("a.part", False, False),
    ],
)
def test_hidden_and_temporary_files_are_never_listed_and_names_that_are_no_keys_only_if_asked_for(
    key: str, listed: bool, with_any_name: bool
):
    assert is_listed(key, any_name=False) is listed
    assert is_listed(key, any_name=True) is with_any_name
