"""Keys of objects: no key leaves the store's folder."""

import os

from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.storage.objects.keys import check_key


@given(st.text())
def test_a_checked_key_never_leaves_its_folder(key: str):
    try:
        check_key(key)
    except ValueError:
        return
    assert os.path.normpath(key) == key
    assert not os.path.isabs(key)
    assert not key.startswith("..")
