"""An answer is decoded to a record, or causes an error that describes the problem."""

from __future__ import annotations

import pytest

from fastscreen.control import messages
from fastscreen.control.client import Malformed, record


def test_record_says_what_is_wrong() -> None:
    with pytest.raises(Malformed, match=r"not fastscreen's protocol: .*`int`"):
        record(messages.Sessions, {"total": "many"})
    assert record(messages.Sessions, {"total": 3, "later": [1]}).total == 3
