"""Changes of master.cf: any text, any bytes, and the way back."""

import pytest

from fastscreen.postfix import master_cf
from fastscreen.postfix.advice import Change
from fastscreen.postfix.files import commented, services

TEXT = """\
# comment
smtp inet n - y - 1 postscreen
  # inside
  -o postscreen_greet_wait=3s

qmgr unix n - n 300 1 qmgr"""


def _commented(text: str, name: str) -> Change:
    service = next(each for each in services(text, "here") if each.name == name)
    return Change(service.full_name, "why", list(service.line.physical), commented(service.line))


def test_a_service_of_several_lines_and_one_that_is_added() -> None:
    added = Change("smtpd/pass", "why", [], ["smtpd pass - - y - - smtpd", "  -o x=y"])
    after = master_cf.changed(TEXT, [_commented(TEXT, "smtp"), added])
    assert after == (
        "# comment\n#smtp inet n - y - 1 postscreen\n  # inside\n#  -o postscreen_greet_wait=3s\n\n"
        "qmgr unix n - n 300 1 qmgr\nsmtpd pass - - y - - smtpd\n  -o x=y\n"
    )
    assert [each.name for each in services(after, "here")] == ["qmgr", "smtpd"]


def test_every_copy_of_a_service_is_changed() -> None:
    line = "smtp inet n - y - - smtpd\n"
    assert master_cf.changed(line + line, [_commented(line + line, "smtp")]) == f"#{line}#{line}"


def test_lines_that_are_missing() -> None:
    with pytest.raises(master_cf.ChangeError, match="smtp/inet: its lines were not found"):
        master_cf.changed("", [_commented(TEXT, "smtp")])


def test_any_bytes_survive() -> None:
    data = bytes(range(256)) + b"\r\n"
    assert master_cf.encoded(master_cf.changed(master_cf.decoded(data), [])) == data


def test_the_difference_can_be_printed() -> None:
    lines = master_cf.unified(b"a\tb\n\x1b\n", b"a\tc\n\x1b\n", "/etc/master.cf")
    assert lines == ["--- /etc/master.cf", "+++ /etc/master.cf", "@@ -1,2 +1,2 @@", "-a\tb", "+a\tc", " \\x1b"]
    assert master_cf.unified(b"a", b"a", "x") == []
