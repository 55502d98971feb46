"""An answer becomes a record, or an error that says what is wrong with it."""

from __future__ import annotations

import pytest

from fastscreen.control import messages
from fastscreen.control.client import Malformed


def test_record_says_what_is_wrong() -> None:
    with pytest.raises(Malformed, match=r"not fastscreen's protocol: .*`int`"):
        messages.record(messages.Sessions, {"total": "many"})
    assert messages.record(messages.Sessions, {"total": 3, "later": [1]}).total == 3
