"""The EHLO reply and its discard words (reference 5.6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastscreen.config import load
from fastscreen.mta.ehlo_keywords import Keyword, keyword_words, parse_keywords
from fastscreen.screening.ehlo_reply import Ehlo


def ehlo(folder: Path, text: str = "") -> Ehlo:
    (folder / "e.toml").write_text(f"hostname = 'mx.test'\n[engine]\n{text}\n")
    config = load(folder / "e.toml")
    return Ehlo(config.engine, config.hostname)


def test_the_whole_reply(tmp_path: Path) -> None:
    assert ehlo(tmp_path).default.reply == (
        b"250-mx.test\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-ENHANCEDSTATUSCODES\r\n"
        b"250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"
    )


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("announce_vrfy = false", b"250-VRFY\r\n"),
        ("disable_vrfy_command = true", b"250-VRFY\r\n"),
        ("smtputf8 = false", b"250-SMTPUTF8\r\n"),
        ('discard_ehlo_keywords = ["etrn"]', b"250-ETRN\r\n"),
        ('discard_ehlo_keywords = ["silent-discard, ETRN nonsense"]', b"250-ETRN\r\n"),
    ],
)
def test_what_is_left_out(tmp_path: Path, text: str, gone: bytes) -> None:
    assert ehlo(tmp_path, text).default.reply == ehlo(tmp_path).default.reply.replace(gone, b"")


def test_the_last_line_has_no_dash_whatever_is_discarded(tmp_path: Path) -> None:
    every = "SIZE VRFY ETRN ENHANCEDSTATUSCODES 8BITMIME DSN SMTPUTF8 CHUNKING"
    assert ehlo(tmp_path, f'discard_ehlo_keywords = ["{every}"]').default.reply == b"250 mx.test\r\n"
    assert ehlo(tmp_path, 'discard_ehlo_keywords = ["chunking"]').default.reply.endswith(b"250 SMTPUTF8\r\n")


def test_size_without_a_limit(tmp_path: Path) -> None:
    assert b"250-SIZE\r\n" in ehlo(tmp_path, "message_size_limit = 0").default.reply


def test_address_maps_replace_the_list_and_are_logged(tmp_path: Path) -> None:
    made = ehlo(
        tmp_path,
        'discard_ehlo_keywords = ["DSN"]\n'
        'discard_ehlo_keyword_address_maps = ["cidr:{{192.0.2.1 vrfy etrn}, {192.0.2.2 silent-discard etrn},'
        ' {192.0.2.3 dsn}, {192.0.2.4 nonsense}}"]',
    )
    answers = [made.for_client(f"192.0.2.{n}") for n in range(1, 6)]
    assert [answer.log for answer in answers] == ["discarding EHLO keywords: ETRN, VRFY", None, None, None, None]
    assert answers[0].discard == Keyword.VRFY | Keyword.ETRN
    assert b"DSN" in answers[0].reply
    assert b"ETRN" not in answers[1].reply
    assert b"DSN" not in answers[2].reply
    assert b"DSN" in answers[3].reply
    assert answers[4] is made.default
    assert made.default.log is None


def test_words_in_the_order_of_the_log() -> None:
    mask = parse_keywords(["CHUNKING vrfy,8bitmime", "silent-discard"])
    assert keyword_words(mask) == "8BITMIME, VRFY, CHUNKING, SILENT-DISCARD"
