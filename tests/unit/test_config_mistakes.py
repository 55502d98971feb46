"""All mistakes of a configuration at once: each a line with its place in the file and what should stand there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastscreen.cli import main
from fastscreen.config import ConfigError, load, parse
from fastscreen.config.errors import MAX_PROBLEMS

CHECKED = ("run", "check", "allowlist refresh", "cache import lmdb:/x", "report --what-if threshold=1")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "FILE")
    found = caught.value.problems
    assert all(line.startswith("FILE: ") and line.isprintable() and len(line) < 2000 for line in found)
    assert str(caught.value).isprintable()
    return [line.removeprefix("FILE: ") for line in found]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[greet]\naction = enforce",
            'line 2: action = enforce: text needs quotes; expected action = "enforce"',
        ),
        (
            "[greet]\nwait = 6s  # long enough",
            'line 2: wait = 6s  # long enough: text needs quotes; expected wait = "6s"',
        ),
        ("[greet]\nwait: 6s", 'line 2: wait: 6s: ":" in place of "="; expected wait = "6s"'),
        (
            "[greet]\naction = \u201cenforce\u201d",
            'line 2: action = \u201cenforce\u201d: not the quotes of TOML; expected action = "enforce"',
        ),
        ("[engine]\nhelo_required = yes", "line 2: helo_required = yes: not TOML; expected helo_required = true"),
        ("[engine]\nhelo_required = False", "line 2: helo_required = False: not TOML; expected helo_required = false"),
        ("[deep]\npipelining = yes", 'line 2: pipelining = yes: text needs quotes; expected pipelining = "enforce"'),
        (
            "[access]\nmynetworks = 127.0.0.0/8, [::1]/128",
            "line 2: mynetworks = 127.0.0.0/8, [::1]/128: a list needs brackets, and text needs quotes; "
            'expected mynetworks = ["127.0.0.0/8", "[::1]/128"]',
        ),
        (
            "[access]\nmynetworks = [127.0.0.0/8]",
            "line 2: mynetworks = [127.0.0.0/8]: a list needs brackets, and text needs quotes; "
            'expected mynetworks = ["127.0.0.0/8"]',
        ),
        (
            '[dnsbl]\nsites = [\n  "a.example",\n  zen.example.org*3,\n]',
            'line 4: zen.example.org*3,: text needs quotes; expected "zen.example.org*3",',
        ),
        ("[greet]\nwait =", 'line 2: wait =: no value; expected wait = "6s"'),
        ("[greet\nwait = 6", "line 1: [greet: "),
        ("[greet]\n[dnsbl]\n[greet]\nwait = 3", "line 3: [greet]: "),
        ("postscreen_greet_action = enforce", 'expected action = "enforce" in [greet]'),
        ("hostname = mx.example.com", 'line 1: hostname = mx.example.com: text needs quotes; expected hostname = "mx.'),
        ('x = """never\nends', "line 1: "),
    ],
)
def test_what_is_no_toml(text: str, said: str) -> None:
    (line,) = problems(text)
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'postscreen_greet_action = "enforce"',
            'postscreen_greet_action: unknown name, this is Postfix\'s name; expected action = "enforce" in [greet] '
            "(line 1)",
        ),
        (
            "[deep]\npipelining_enable = true",
            'deep.pipelining_enable: unknown name, this is Postfix\'s name; expected pipelining = "enforce" in [deep]',
        ),
        ("[deep]\nbare_newline_enable = false", 'expected bare_newline = "off" in [deep] (line 2)'),
        ('[deep]\npipelining_enable = "yes"', 'expected pipelining = "enforce" in [deep]'),
        ('postscreen_greet_wait = "3s"', 'expected wait = "3s" in [greet]'),
        ('postscreen_dnsbl_sites = "a.example*2, b.example"', 'sites = ["a.example*2", "b.example"] in [dnsbl]'),
        ('dnsbl_sites = ["a.example"]', 'expected sites = ["a.example"] in [dnsbl]'),
        ('postscreen_dnsbl_threshold = "3"', "expected threshold = 3 in [dnsbl]"),
        ('[dnsbl]\npostscreen_dnsbl_ttl = "1h"', 'expected max_ttl = "1h" in [dnsbl]'),
        ('postscreen_blacklist_action = "drop"', 'expected denylist_action = "drop" in [access]'),
        ('myhostname = "mx.example.com"', 'expected hostname = "mx.example.com" at the top of the file'),
        ('smtpd_tls_cert_file = "/c.pem"', 'expected certificates = ["/c.pem"] in [tls]'),
        ('[tls]\ncert_file = "/c.pem"', 'expected certificates = ["/c.pem"] in [tls]'),
        ('greet_wait = "3s"', 'expected wait = "3s" in [greet]'),
        (
            '[log]\nlevel = "info"',
            "log.level: unknown name, log levels do not exist; expected log_level = 1 in [tls] to log TLS",
        ),
        ("[greet]\ntreshold = 3", 'greet.treshold: unknown name, did you mean "dnsbl.threshold"?'),
        ("[dnsbl]\ntreshold = 3", 'dnsbl.treshold: unknown name, did you mean "threshold"?'),
        ('[greet]\nlevel = "verbose"', "greet.level: unknown name; expected banner, wait"),
        ('[greet]\nwait = "6 s"', 'greet.wait: bad time "6 s"; expected a whole number with the unit'),
    ],
)
def test_a_name_or_value_that_is_wrong(text: str, said: str) -> None:
    (line,) = problems(text)
    assert said in line
    assert line.endswith(")")  # with its line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seen_network = 2", "score.memory: missing, but score.seen_network is 2; expected the path of a file"),
        (
            '[cluster]\nserver = "redis://x"\nsecret_file = "/x/secret"\nshare = ["passes", "offenses"]',
            'score.memory: missing, but cluster.share has "offenses"; expected the path of a file',
        ),
        (
            '[cluster]\nserver = "redis://x"\nsecret_file = "/x/secret"\naccept = ["offenses"]',
            'score.memory: missing, but cluster.accept has "offenses"; expected the path of a file',
        ),
        (
            'memory = "/x/offenses"\nseen_as = 1',
            "score.as_file: missing, but score.seen_as is 1; expected the path of a file",
        ),
        (
            'memory = "/var/lib/fastscreen/cache"\n[cache]\npath = "/var/lib/fastscreen/cache"',
            "score.memory: this is also cache.path; expected another file",
        ),
        (
            'memory_half_life = "23h"',
            'score.memory_half_life: time "23h" is out of range; expected a whole number with the unit s, m, h, d or w '
            '(without a unit: d), at least "86400s"',
        ),
    ],
)
def test_the_memory_of_offenses(text: str, said: str) -> None:
    (line,) = problems(f"[score]\n{text}\n")
    assert line.partition(" (line ")[0] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('log = "mail.log"', 'feedback.log: bad log "mail.log"; expected an absolute path, "journal", or ""'),
        (
            r"""spam = 'rspamd (?P<queue>\w+'""",
            "feedback.spam: missing ) at position 20; expected a regular expression with the group (?P<queue>...), or "
            "with (?P<address>...) and (?P<port>...)",
        ),
        (
            r"""spam = '(?P<address>\S+)'""",
            "feedback.spam: a group is missing; expected a regular expression with the group (?P<queue>...), or with "
            "(?P<address>...) and (?P<port>...)",
        ),
        (
            r"""spam = '(?P<queue>\w+) (?P<id>\w+)'""",
            'feedback.spam: unknown group "id"; expected a regular expression with the group (?P<queue>...), or with '
            "(?P<address>...) and (?P<port>...)",
        ),
        ('log = "journal"', "score.memory: missing, but feedback.log is set; expected the path of a file"),
        (
            "spam = '(?P<queue>x)'",
            'feedback.log: missing, but feedback.spam is set; expected an absolute path or "journal"',
        ),
    ],
)
def test_feedback(text: str, said: str) -> None:
    (line,) = problems(f"[feedback]\n{text}\n")
    assert line.partition(" (line ")[0] == said


def test_all_mistakes_in_one_go() -> None:
    found = problems(
        "mode = shadow\n[greet]\nwait = 0\naction = enforce\n[dnsbl]\ntreshold = 3\nsites = ['a..b', 'c.example*x']\n"
        "[tls]\nlevel = 'may'\n[listen]\naddresses = []\n"
    )
    assert [line.partition(": ")[0] for line in found] == [
        *("line 1", "line 4", "dnsbl.treshold", "greet.wait", "dnsbl.sites", "dnsbl.sites"),
        *("listen.addresses", "tls.certificates"),
    ]


def test_a_log_gets_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[greet]\nwait = 0\nttl = 0\n", "FILE")
    assert str(caught.value).startswith("FILE: greet.wait: ")
    assert str(caught.value).endswith(" (and 1 more: `fastscreen check -c FILE` shows all)")


def test_a_file_that_is_no_configuration_floods_nobody() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("".join(f"k{number} = 1\n" for number in range(500)), "FILE")
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[-1] == "450 more problems"
    assert len(problems("".join(f"some words {number}\n" for number in range(5000)))) <= 20
    assert len(problems("x" * 100_000)[0]) < 500


@given(st.text(st.sampled_from("ab=\n[]\"' #.{}:,1\x1b\u202ex"), max_size=60))
def test_any_text_has_an_end(text: str) -> None:
    try:
        parse(text, "FILE")
    except ConfigError as error:
        assert all(line.startswith("FILE: ") and line.isprintable() for line in error.problems)


@pytest.mark.parametrize("command", CHECKED)
def test_every_command_shows_them_the_same_way(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fastscreen.toml"
    path.write_text("[greet]\naction = enforce\nwait = 0\n[deep]\npipelining_enable = true\n")
    assert main([*command.split(), "-c", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"fastscreen: {path}: ") for line in lines] == [True] * 3
    assert lines[0].endswith('line 2: action = enforce: text needs quotes; expected action = "enforce"')
    assert lines[1].endswith('expected pipelining = "enforce" in [deep] (line 5)')
    assert "greet.wait: " in lines[2]


def test_check_has_them_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fastscreen.toml"
    path.write_text("[greet]\nwait = 0\nttl = 0\n")
    assert main(["check", "--json", "-c", str(path)]) == 2
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert [each["detail"].partition(": ")[2].partition(": ")[0] for each in report["checks"]] == [
        "greet.wait",
        "greet.ttl",
    ]


def test_every_table_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastscreen.cli.check.user_of", lambda config: "")  # this cannot be undone
    path = tmp_path / "fastscreen.toml"
    path.write_text(
        '[access]\nlist = ["cidr:/gone/1", "permit_mynetworks", "pcre:/gone/2"]\nmynetworks = ["/gone/3"]\n'
        '[engine]\ncommand_filter = "pcre:/gone/4"\n[dnsbl]\nreply_map = "texthash:/gone/5"\n[cache]\npath = ""\n'
    )
    load(path)
    assert main(["check", "-c", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.partition("/gone/")[2][0] for line in lines) == ["1", "2", "3", "4", "5"]
