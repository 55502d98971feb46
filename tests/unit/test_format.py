"""Times as people read them."""

from __future__ import annotations

import math
import time

import pytest

from fastscreen.format import moment


@pytest.mark.parametrize("when", [1e308, -1e308, 1e18, math.inf, -math.inf, math.nan])
def test_a_time_that_cannot_be_one_is_shown_as_unknown(when: float) -> None:
    assert moment(when) == "an unknown time"


@pytest.mark.parametrize("when", [0.0, 1.7e9, 2.0**32])
def test_a_time_is_local(when: float) -> None:
    assert time.mktime(time.strptime(moment(when), "%Y-%m-%d %H:%M:%S")) == when
