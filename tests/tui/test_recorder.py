"""The line of Overview about the recording of sessions."""

import pytest

from fastscreen.control.messages import Recorder, Status
from fastscreen.tui.palette import BAD, OK
from fastscreen.tui.views.overview import overview
from fastscreen.tui.views.recorder import recorder_line

RECORDING = Recorder(
    running=True, recording=True, since=1000.0, sessions=1_234_567, bytes=3_400_000_000, max_size=4 << 30, days=30
)
FULL = "less than 67.1 MB of the file system of /var/lib/fastscreen/history is free"


@pytest.mark.parametrize(
    ("history", "text", "role"),
    [
        (RECORDING, " History  recording, 1.23 M sessions, 30 days, 3.4 GB of 4.29 GB", OK),
        (Recorder(running=True, recording=True, days=1), " History  recording, 0 sessions, 1 day, 0 B of 0 B", OK),
        (
            Recorder(running=True, recording=True, days=2, lost=1500, set_aside=1),
            " History  recording, 0 sessions, 2 days, 0 B of 0 B, 1,500 lost, 1 damaged",
            OK,
        ),
        (
            Recorder(running=True, since=1000.0, problem=FULL),
            " History  suspended for 1m00s: less than 67.1 MB of the file system of /var/li…",
            BAD,
        ),
        (Recorder(), " History  the recorder is not running", BAD),
    ],
)
def test_the_line(history: Recorder, text: str, role: str) -> None:
    line = recorder_line(history, 1060.0, 79)
    assert line.plain == text
    assert role in {str(span.style) for span in line.spans}


def test_it_is_part_of_overview() -> None:
    def lines(history: Recorder | None) -> list[str]:
        status = Status(1060.0, 0.0, "0.1.0", "mx.test", 1, history=history)
        return [line.plain for line in overview(status, [], [], 80, 24)]

    found = lines(RECORDING)
    assert found.count(" History  recording, 1.23 M sessions, 30 days, 3.4 GB of 4.29 GB") == 1
    assert len(found) <= 24
    assert not any("History" in line for line in lines(None))
