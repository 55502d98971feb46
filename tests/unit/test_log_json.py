"""Log lines as JSON objects: always valid, with stable names, and at most as long as an atomic write to a pipe."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastscreen.core import Log


def logged(text: str, *, warning: bool = False, syslog: bool = False) -> bytes:
    log = Log("postfix/postscreen", json=True, host="mx", pid=17)
    if syslog:
        log.open(-1, syslog=True)
    (log.warning if warning else log.info)(text)
    return log.lines()


def one(text: str, *, warning: bool = False) -> dict[str, Any]:
    line = logged(text, warning=warning)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_fields() -> None:
    found = one("PASS NEW [192.0.2.1]:51234")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d", found.pop("time"))
    assert found == {
        "host": "mx",
        "program": "postfix/postscreen",
        "pid": 17,
        "level": "info",
        "event": "pass_new",
        "client": "192.0.2.1",
        "port": 51234,
        "message": "PASS NEW [192.0.2.1]:51234",
    }


def test_events() -> None:
    for text, event in (
        ("CONNECT from [2001:db8::1]:1 to [192.0.2.2]:25", "connect"),
        ("PREGREET 11 after 0.1 from [2001:db8::1]:1: [192.0.2.9]:2", "pregreet"),
        ("NON-SMTP COMMAND from [2001:db8::1]:1 after CONNECT: GET / HTTP/1.0", "non_smtp_command"),
        ("COMMAND TIME LIMIT from [2001:db8::1]:1 after CONNECT", "command_time_limit"),
        ("DNSBL rank 5 for [2001:db8::1]:1", "dnsbl"),
        ("NOQUEUE: reject: RCPT from [2001:db8::1]:1: 550 5.7.1 x; from=<a>, to=<b>", "reject"),
        ("reject: connect from [2001:db8::1]:1: all screening ports busy", "reject"),
        ("DISCONNECT [2001:db8::1]:1", "disconnect"),
    ):
        found = one(text)
        assert (found["event"], found["client"], found["port"]) == (event, "2001:db8::1", 1), text


def test_what_is_no_event_names_no_client() -> None:
    for text in ("daemon started -- listening on [::1]:25", "cache lmdb:/x: [192.0.2.1]:1", "", "X"):
        assert not {"event", "client", "port"} & set(one(text))
    assert not {"event", "client"} & set(one("PASS NEW [192.0.2.1]:1", warning=True))
    assert one("x", warning=True)["level"] == "warning"


def test_to_syslog_it_is_the_text() -> None:
    head, _, text = logged("PASS NEW [192.0.2.1]:1", syslog=True).partition(b"]: ")
    assert re.fullmatch(rb"<22>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d postfix/postscreen\[17", head)
    assert json.loads(text)["event"] == "pass_new"


@given(st.text(max_size=3000))
def test_always_valid_and_bounded(text: str) -> None:
    line = logged("PREGREET 1 after 0 from [192.0.2.1]:1: " + text)
    assert len(line) <= 4096
    found = json.loads(line)
    assert found["client"] == "192.0.2.1"
    assert found["message"].startswith("PREGREET 1 after 0 from ")
    assert all(character.isprintable() or ord(character) > 159 for character in found["message"])


def test_the_worst_text_fits_into_a_pipe() -> None:
    line = logged('"' * 5000)
    assert len(line) <= 4096
    assert len(json.loads(line)["message"]) == 1700


def test_the_text_form_is_as_it_was() -> None:
    log = Log("postfix/postscreen", host="mx", pid=17)
    log.info('PASS NEW [192.0.2.1]:1 "')
    assert re.fullmatch(
        rb'\w{3} [ \d]\d [\d:]{8} mx postfix/postscreen\[17\]: PASS NEW \[192.0.2.1\]:1 "\n', log.lines()
    )
