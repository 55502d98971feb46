"""Keys from environment variables: which are read, how values are typed, and that errors name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastscreen.cli import main
from fastscreen.config import Config, ConfigError, Endpoint, default, environment, load, parse
from fastscreen.config.keys import KEYS
from fastscreen.tune.settings import tried

FILE = '[dnsbl]\nthreshold = 2\nsites = ["a.example"]\n[greet]\nwait = "4s"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSCREEN_ENVIRONMENT", "read")
    path = tmp_path / "fastscreen.toml"
    path.write_text(FILE)
    return path


def loaded(monkeypatch: pytest.MonkeyPatch, file: Path, **variables: str) -> Config:
    for name, text in variables.items():
        monkeypatch.setenv(f"FASTSCREEN_{name}", text)
    return load(file)


def problems(monkeypatch: pytest.MonkeyPatch, file: Path, **variables: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(monkeypatch, file, **variables)
    return list(caught.value.problems)


def test_each_key_has_its_own_variable() -> None:
    assert len(environment.VARIABLES) == len(KEYS)
    assert environment.variable("dnsbl.max_ttl") == "FASTSCREEN_DNSBL__MAX_TTL"
    assert environment.variable("mode") == "FASTSCREEN_MODE"


def test_no_variable_is_one_of_docker_or_kubernetes() -> None:
    """Those of a service `fastscreen` or `fastscreen-X` have single underscores, and end in one of these words."""
    for name in environment.VARIABLES:
        assert "__" in name or not name.endswith(("_PORT", "_HOST", "_TCP", "_ADDR", "_PROTO"))


def test_the_environment_has_priority_over_the_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    config = loaded(
        monkeypatch, file,
        DNSBL__THRESHOLD="7", HOSTNAME="mx.example.org", ENGINE__HELO_REQUIRED="true", LIMITS__PRE_QUEUE="50",
        DNSBL__SITES='["b.example*3", "c.example"]', CACHE__MAX_SIZE="512M", LISTEN__ADDRESSES='["0.0.0.0:2525"]',
        LISTEN__PROXY='[{addresses = ["127.0.0.1:2526"], trusted = ["192.0.2.0/24"]}]',
    )  # fmt: skip
    assert config.dnsbl.threshold == 7
    assert config.hostname == "mx.example.org"
    assert config.engine.helo_required is True
    assert config.limits.pre_queue == 50
    assert [site.domain for site in config.dnsbl.sites] == ["b.example", "c.example"]
    assert config.cache.max_size == 512 << 20
    assert config.listen.addresses == (Endpoint("0.0.0.0", 2525),)
    assert config.listen.proxy[0].trusted == ("192.0.2.0/24",)
    assert config.greet.wait == parse(FILE, "FILE").greet.wait


def test_text_needs_no_quotes_and_may_have_them(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert loaded(monkeypatch, file, GREET__WAIT="5s", LOG__IDENT='"2525"', BANNER='"a b"').greet.wait == 5
    assert load(file).log.ident == "2525"
    assert load(file).banner == "a b"


def test_an_empty_variable_is_ignored(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Compose sets `${UNSET:-}`, and Kubernetes an optional reference, to nothing."""
    assert loaded(monkeypatch, file, DNSBL__THRESHOLD="", CONTROL__PATH='""').dnsbl.threshold == 2
    assert load(file).control.path == ""


@pytest.mark.parametrize("switch", [None, "", "ignore"])
def test_nothing_is_read_without_the_switch(monkeypatch: pytest.MonkeyPatch, file: Path, switch: str | None) -> None:
    if switch is None:
        monkeypatch.delenv("FASTSCREEN_ENVIRONMENT")
    else:
        monkeypatch.setenv("FASTSCREEN_ENVIRONMENT", switch)
    assert loaded(monkeypatch, file, DNSBL__THRESHOLD="7", DNSBL__NONSENSE="7") == parse(FILE, str(file))


def test_the_built_in_settings_take_the_environment_too(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("FASTSCREEN_DNSBL__THRESHOLD", "7")
    monkeypatch.setenv("FASTSCREEN_GREET__ACTION", "ignore")
    assert default().dnsbl.threshold == 7
    assert default().greet.action == "ignore"


def test_a_text_alone_has_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("FASTSCREEN_DNSBL__THRESHOLD", "7")
    assert parse(FILE, "FILE").dnsbl.threshold == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("DNSBL__THRESHOLD", "0", "0 is out of range; expected a whole number of at least 1"),
        ("DNSBL__THRESHOLD", "three", '"three" is not a whole number; expected a whole number of at least 1'),
        ("LOG__IDENT", "2525", "2525 is not a string; expected "),
        ("DNSBL__SITES", "a.example", '"a.example" is not a list; expected a list in which each item is '),
        (
            "DNSBL__SITES",
            '["a.example"',
            '"["a.example"" is not a TOML value; expected text, or a value as in the file',
        ),
        ("GREET__WAIT", "3s\nx = 1", 'bad time "3s\\nx = 1"; expected '),
        ("LIMITS__PRE_QUEUE", "5\n[dnsbl]\nthreshold = 1", '"5\\n[dnsbl]\\nthreshold = 1" is not a whole number; '),
        ("BANNER", "$nothing", 'unknown name "$nothing"; expected '),
        ("DNSBL__TRESHOLD", "3", "unknown name, did you mean FASTSCREEN_DNSBL__THRESHOLD?; expected "),
        ("NONSENSE__X", "3", "unknown name; expected FASTSCREEN_TABLE__KEY, such as FASTSCREEN_DNSBL__THRESHOLD"),
        ("DNSBL_THRESHOLD", "3", "unknown name; expected FASTSCREEN_DNSBL__THRESHOLD"),
        ("dnsbl__threshold", "3", "unknown name; expected FASTSCREEN_DNSBL__THRESHOLD"),
        ("ENVIRONMENT", "yes", '"yes" is unknown; expected read or ignore'),
    ],
)
def test_errors_name_the_variable(monkeypatch: pytest.MonkeyPatch, file: Path, name: str, text: str, said: str) -> None:
    (found,) = problems(monkeypatch, file, **{name: text})
    assert found.startswith(f"environment: FASTSCREEN_{name}: {said}"), found
    assert found.isprintable()


def test_a_mistake_in_the_file_that_a_variable_replaces(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("[dnsbl]\nthreshold = 0\n[greet]\nwait = 0\n")
    (found,) = problems(monkeypatch, file, DNSBL__THRESHOLD="1")
    assert found.startswith(f"{file}: greet.wait: ")
    assert found.endswith("(line 4)")


def test_a_value_in_place_of_a_table_stays_a_mistake_of_the_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("dnsbl = 3\n")
    (found,) = problems(monkeypatch, file, DNSBL__THRESHOLD="1")
    assert found.startswith(f"{file}: dnsbl: not a table")


def test_all_errors_at_once(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("[greet]\nwiat = 3\n")
    found = problems(monkeypatch, file, DNSBL__THRESHOLD="0", DNSBL__X="1")
    assert len(found) == 3


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_25_TCP", "PORT_25_TCP_ADDR", "SERVICE_PORT_SMTP", "VERSION"]
)
def test_variables_of_others_are_ignored(monkeypatch: pytest.MonkeyPatch, file: Path, name: str) -> None:
    assert loaded(monkeypatch, file, **{name: "tcp://10.0.0.1:25"}) == parse(FILE, str(file))


def test_what_tune_tries_includes_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("FASTSCREEN_DNSBL__SITES", '["b.example"]')
    found = tried(file, None, ["dnsbl.threshold=5"])
    assert [key for key, _, _ in found.changed] == ["dnsbl.threshold"]


def test_check_says_what_the_environment_sets(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(
        'handoff.to = "sink:"\nlisten.addresses = ["127.0.0.1:0"]\ncontrol.path = ""\n'
        f'[cache]\npath = "{file.parent}/cache"\n'
    )
    monkeypatch.setenv("FASTSCREEN_DNSBL__THRESHOLD", "3")
    monkeypatch.setenv("FASTSCREEN_LOG__TO", "stderr")
    main(["check", "-c", str(file)])
    assert f"{file}: environment: sets dnsbl.threshold, log.to, in place of the file" in capsys.readouterr().out


def test_commands_find_the_socket_although_another_key_is_wrong(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTSCREEN_CONTROL__PATH", str(file.parent / "missing"))
    monkeypatch.setenv("FASTSCREEN_DNSBL__THRESHOLD", "0")
    assert main(["status", "-c", str(file)]) == 1
    assert str(file.parent / "missing") in capsys.readouterr().err
