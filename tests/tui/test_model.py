"""An answer becomes a record, or an error that says what is wrong with it."""

from __future__ import annotations

import pytest

from fastscreen.client import Malformed
from fastscreen.tui import model


def test_record_says_what_is_wrong() -> None:
    with pytest.raises(Malformed, match=r"not what docs/control.md says: .*`int`"):
        model.record(model.Sessions, {"total": "many"})
    assert model.record(model.Sessions, {"total": 3, "later": [1]}).total == 3
