"""Query keys of DNS lists are never shown."""

import pytest

from fastscreen.report.masking import Masking

DQS = "abcdefghijklmnopqrstuvwxyz"
ABUSIX = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{DQS}.zen.dq.spamhaus.net", "***.zen.dq.spamhaus.net"),
        (f"warning: dnsblog reply timeout 10s for {DQS}.sbl.dq.spamhaus.net", None),
        (f"550 5.7.1 blocked using {DQS.upper()}.zen.dq.spamhaus.net; x", None),
        ("short.zen.dq.spamhaus.net=127.0.0.2*3", "***.zen.dq.spamhaus.net=127.0.0.2*3"),
        (f"{ABUSIX}.combined.mail.abusix.zone", "***.combined.mail.abusix.zone"),
        ("k3y.df.uribl.com", "***.df.uribl.com"),
        (f"{ABUSIX}.bl.example", "***.bl.example"),
        ("secret.bl.example and secret.bl.example.net", "BL and BL.net"),
        ("zen.secret.bl.example", "zen.secret.example"),  # the longer name first
    ],
)
def test_masked(text: str, shown: str | None) -> None:
    masked = Masking({"secret.bl.example": "BL", "zen.secret.bl.example": "zen.secret.example"}).text(text)
    assert shown is None or masked == shown
    assert not any(key in masked.lower() for key in (DQS, ABUSIX, "short", "k3y", "secret.bl"))


@pytest.mark.parametrize(
    "text",
    [
        "zen.spamhaus.org",
        "zen.dq.spamhaus.net",
        "combined.mail.abusix.zone",
        "bl.spameatingmonkey.net",
        "b.barracudacentral.org",
        "hostkarma.junkemailfilter.com",
        "dnsbl-1.uceprotect.net",
        f"bounce+{ABUSIX}@{ABUSIX}.example.com",
        f"{ABUSIX}@example.com",
        "192.0.2.0/24",
        "12345678901234567890123.456.789",
        "",
    ],
)
def test_left(text: str) -> None:
    assert Masking({"a.example": "a.example"}).text(text) == text


def test_names_that_become_one_are_added_up() -> None:
    record = {"a": [{f"{DQS}.zen.dq.spamhaus.net": 1, f"{ABUSIX}.zen.dq.spamhaus.net": 2}, 3, None, 0.5, True]}
    assert Masking({}).record(record) == {"a": [{"***.zen.dq.spamhaus.net": 3}, 3, None, 0.5, True]}
