"""The manual pages are made from the code, and are what is in contrib/man."""

import argparse

from fastscreen.cli import COMMANDS
from fastscreen.config.keys import KEYS
from tools import man_pages


def test_they_are_up_to_date() -> None:
    """`make docs` writes them."""
    assert (man_pages.FOLDER / "fastscreen.1").read_text() == man_pages.command_page()
    assert (man_pages.FOLDER / "fastscreen.toml.5").read_text() == man_pages.key_page()


def test_every_command_and_key_is_there() -> None:
    page = man_pages.command_page()
    for command in COMMANDS:
        assert f".SS {man_pages.roff(f'fastscreen {command}')}\n" in page
    for ways in ("cache import", "allowlist refresh", "bypass on"):
        assert f".SS fastscreen {ways}\n" in page
    page = man_pages.key_page()
    for key in KEYS:
        assert rf"\fB{man_pages.roff(key.name)}\fR = " in page


def test_nothing_of_a_text_is_a_request() -> None:
    assert man_pages.roff(".so x\n'so \\fB-") == "\\&.so x\n\\(aqso \\efB\\-"
    parser = argparse.ArgumentParser(prog="x")
    parser.add_argument("--number", type=int, default=3, metavar="N", help="so many (%(default)s)")
    assert "so many (3)" in man_pages._options(parser)
