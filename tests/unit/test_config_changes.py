"""Which keys a reload applies, by their marks in the table, and how a file is compared with a running daemon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastscreen.config import Config, default
from fastscreen.config.changes import Change, changes, fingerprints, kept
from fastscreen.config.keys import KEYS, Key, Restart
from tools import config_docs, man_pages

MARKED = {
    "user": Restart.STOP_AND_START,
    "listen.workers": Restart.STOP_AND_START,
    "control.group": Restart.STOP_AND_START,
    "limits.client_network_rate": Restart.IF_SWITCHED,
    **dict.fromkeys(
        (
            "tls.processes",
            "cache.path",
            "cache.prefix_ipv4",
            "cache.prefix_ipv6",
            "score.memory",
            "cluster.server",
            "cluster.sentinels",
            "cluster.master",
            "cluster.password_file",
            "cluster.ca_file",
            "cluster.prefix",
            "cluster.name",
            "history.path",
            "cluster.secret_file",
            "limits.client_connection_prefix_ipv4",
            "limits.client_connection_prefix_ipv6",
            "control.path",
            "metrics.listen",
            "log.to",
            "log.ident",
            "log.stamps",
            "log.format",
            "log.delay_resolution",
        ),
        Restart.NEEDED,
    ),
}
UNCONDITIONAL = [key for key in KEYS if key.restart is not Restart.IF_SWITCHED]


def replaced(config: Config, key: str, value: Any) -> Config:
    table, _, name = key.rpartition(".")
    if not table:
        return msgspec.structs.replace(config, **{name: value})
    return msgspec.structs.replace(config, **{table: msgspec.structs.replace(getattr(config, table), **{name: value})})


def test_the_marked_keys_are_those_that_processes_use_at_their_start_only() -> None:
    """This list was made from the code. A change of the code requires a change of the mark."""
    assert {key.key: key.restart for key in KEYS if key.restart} == MARKED


@pytest.mark.parametrize("key", UNCONDITIONAL, ids=lambda key: key.key)
def test_a_reload_takes_over_what_is_not_marked(key: Key) -> None:
    now = default()
    wanted = replaced(now, key.key, "another value")
    taken, waiting = kept(now, wanted)
    if key.restart:
        assert (taken, waiting) == (now, [Change(key.key, key.restart)])
    else:
        assert (taken, waiting) == (wanted, [])


def test_several_at_once() -> None:
    """What can be taken over is, also in a table where something else cannot."""
    now = default()
    wanted = now
    for key, value in (("cache.path", "/new"), ("cache.retention", 5), ("user", "other"), ("mode", "shadow")):
        wanted = replaced(wanted, key, value)
    taken, waiting = kept(now, wanted)
    assert (taken.cache.path, taken.cache.retention, taken.user, taken.mode) == (now.cache.path, 5, "", "shadow")
    assert [change.key for change in waiting] == ["user", "cache.path"]
    assert [change.remedy for change in waiting] == ["stop and start fastscreen", "run `fastscreen restart`"]


def test_a_restart_takes_over_all_but_what_needs_a_stop_and_a_start() -> None:
    now = default()
    wanted = replaced(replaced(replaced(now, "cache.path", "/new"), "user", "other"), "control.group", "mail")
    taken, waiting = kept(now, wanted, at_restart=True)
    assert (taken.cache.path, taken.user, taken.control.group) == ("/new", now.user, now.control.group)
    assert [change.key for change in waiting] == ["user", "control.group"]


@pytest.mark.parametrize(
    ("workers", "before", "after", "waits"),
    [(1, 0, 5, False), (2, 0, 5, True), (2, 5, 0, True), (0, 0, 5, True), (2, 5, 6, False)],
)
def test_the_rate_of_networks_is_switched(workers: int, before: int, after: int, waits: bool) -> None:
    """With several workers it decides which of them serves a client."""
    now = replaced(replaced(default(), "listen.workers", workers), "limits.client_network_rate", before)
    taken, waiting = kept(now, replaced(now, "limits.client_network_rate", after))
    assert taken.limits.client_network_rate == (before if waits else after)
    assert waiting == ([Change("limits.client_network_rate", Restart.NEEDED)] if waits else [])


def test_fingerprints_tell_values_apart_and_do_not_show_them() -> None:
    config = replaced(default(), "dnsbl.reply_map", "inline:{secretkey.example=example}")
    found = fingerprints(config)
    assert set(found) == {key.key for key in KEYS}
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in found.values())
    assert changes(found, fingerprints(config)) == []
    assert changes(found, fingerprints(default())) == [Change("dnsbl.reply_map", Restart.NOT_NEEDED)]


def test_keys_of_another_version_are_not_compared() -> None:
    found = fingerprints(default())
    older = {key: value for key, value in found.items() if key != "greet.wait"} | {"greet.gone": "0"}
    assert changes(older, found) == []


# ---- what is derived from the marks


def sections(text: str, before: str) -> list[str]:
    """The text about each key, with single spaces. before: a regular expression for its beginning."""
    return [" ".join(part.replace("\n## ", " ").split()) for part in re.split(before, text)]


def test_every_description_shows_the_mark() -> None:
    page = sections(config_docs.page(), r"\n### `[a-z_.0-9]+`\n")[1:]
    man = sections(man_pages.key_page(), r"(?m)^\\fB[a-z_0-9]+\\fR = .*$")[1:]
    example = sections(config_docs.example(), r"(?m)^#[a-z_0-9]+ = .*$")[:-1]
    for key, in_page, in_man, in_example in zip(KEYS, page, man, example, strict=True):
        for mark in filter(None, Restart):
            shown = mark is key.restart
            assert (f"* *{mark}*" in in_page) == shown, key.key
            assert (man_pages.prose(mark) in in_man) == shown, key.key
            assert (config_docs.plain(mark) in in_example) == shown, key.key


# ---- one renderer for each form of text


def test_a_description_is_rendered_for_each_page() -> None:
    text = r"Use `*x`, [proxy.md](proxy.md) and [a page](https://example.org/); 2*3*4 stays, ``a`b`` too."
    assert config_docs.plain(text) == "Use *x, docs/proxy.md and https://example.org/; 2*3*4 stays, a`b too."
    assert config_docs.plain("`off` is not `0`.") == '"off" is not 0.'
    assert man_pages.prose(text) == (
        r"Use \fB*x\fR, docs/proxy.md and https://example.org/; 2*3*4 stays, \fBa\(gab\fR too."
    )
    assert man_pages.prose(".TH is not a request\n`a-b`") == "\\&.TH is not a request\n\\fBa\\-b\\fR"
    assert config_docs.escaped_markdown(r"a[*weight] or \\, as `fastscreen x*` shows") == (
        r"a[\*weight] or \\\\, as `fastscreen x*` shows"
    )


def test_no_markdown_is_left_in_the_example() -> None:
    for line in config_docs.example().splitlines():
        if line.startswith("##"):
            assert not re.search(r"`|\]\(|\*\*", line), line


@pytest.mark.parametrize("page", ["fastscreen.1", "fastscreen.toml.5"])
def test_no_markdown_is_left_in_the_manual_pages(page: str) -> None:
    text = man_pages.command_page() if page == "fastscreen.1" else man_pages.key_page()
    assert text == (Path(man_pages.FOLDER) / page).read_text()
    for line in text.splitlines():
        if not re.match(r"\\fB[a-z0-9_]+\\fR = ", line):  # a default is a value, and one of them has a backtick
            assert not re.search(r"`|\\\(ga|\]\(|\*\*", line), line
