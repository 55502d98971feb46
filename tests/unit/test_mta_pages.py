"""The pages about MTAs: what they say of fastscreen.toml loads, and those that no test runs with say so at once."""

from pathlib import Path

import pytest
from peers import exim, opensmtpd, pages, postfix, profiles

from fastscreen.config import load
from fastscreen.config.model import Proxy

EVERY = sorted(path.name for path in pages.DOCS.glob("mta-*.md"))
TRIED = {postfix.PAGE, exim.PAGE, opensmtpd.PAGE}


@pytest.mark.parametrize("page", EVERY)
def test_its_settings_load(page: str, tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(profiles.to_toml(pages.settings(page)))
    config = load(file)
    assert isinstance(config.handoff.continue_to, Proxy)
    assert [str(target) for target in config.handoff.continue_to.targets] == [postfix.PROXIED]


@pytest.mark.parametrize("page", EVERY)
def test_it_says_whether_it_was_tried(page: str) -> None:
    lines = (pages.DOCS / page).read_text().splitlines()
    assert lines[2].startswith("Tried with " if page in TRIED else "**Not tried.**")


def test_all_that_were_tried_are_there() -> None:
    assert set(EVERY) >= TRIED
