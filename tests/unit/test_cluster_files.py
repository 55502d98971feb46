"""The files of a cluster: secrets and passwords, and what is said of malformed ones; the server's URL."""

from pathlib import Path

import pytest

from fastscreen.cluster import files, secrets
from fastscreen.cluster.secrets import SecretsError
from fastscreen.config import ConfigError
from fastscreen.config.model import ClusterConfig
from fastscreen.config.server_url import ServerUrl, parse_server_url

CLUSTER = ClusterConfig(secret_file="SECRET", password_file="PASSWORD")


@pytest.mark.parametrize("content", [b"0123456789abcdef", b"0123456789abcdef\n", b"\n 0123456789abcdef \r\n\n"])
def test_one_secret(content: bytes) -> None:
    assert secrets.parse(content, "FILE") == secrets.parse(b"0123456789abcdef", "FILE")


def test_the_first_of_two_secrets_signs_and_both_verify() -> None:
    old = secrets.parse(b"the old secret of the hosts", "FILE")
    both = secrets.parse(b"the new secret of the hosts\nthe old secret of the hosts\n", "FILE")
    assert both.verify(old.key_id, b"text", old.sign(b"text"))
    assert not old.verify(both.key_id, b"text", both.sign(b"text"))
    assert both.sign(b"text") != old.sign(b"text")
    assert not both.verify(old.key_id ^ 1, b"text", old.sign(b"text"))


def test_a_long_secret_counts_as_a_whole() -> None:
    one, other = (secrets.parse(b"x" * 100 + end, "FILE") for end in (b"1", b"2"))
    assert one.sign(b"text") != other.sign(b"text")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"fifteen letters", "secret 1 has 15 bytes; expected 16 to 1024"),
        (b"0123456789abcdef\nshort", "secret 2 has 5 bytes"),
        (b"0123456789abcdef\n" * 2, "both secrets are the same"),
        (b"0123456789abcdef\n1123456789abcdef\n2123456789abcdef", "has more than two lines"),
        (b"x" * 1025, "secret 1 has 1025 bytes"),
        (b"x" * 100_000, "has more than two lines"),
    ],
)
def test_malformed_secret_files(content: bytes, problem: str) -> None:
    with pytest.raises(SecretsError) as caught:
        secrets.parse(content, "FILE")
    text = str(caught.value)
    assert text.startswith("cluster.secret_file: FILE: ") and problem in text and "; expected" in text
    assert "\n" not in text and "0123456789" not in text
    with pytest.raises(ConfigError, match=r"cluster\.secret_file"):
        files.parse(CLUSTER, content, b"x")


@pytest.mark.parametrize(
    ("content", "user", "password"),
    [(b"p", "", "p"), (b"u:p\n", "u", "p"), (b"u:p:q\n", "u", "p:q"), (":\u00e4".encode(), "", "\u00e4")],
)
def test_passwords(content: bytes, user: str, password: str) -> None:
    found = files.parse(CLUSTER, b"0123456789abcdef", content)
    assert (found.user, found.password) == (user, password)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff"])
def test_malformed_password_files(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"cluster.password_file: PASSWORD: .*; expected PASSWORD or USER:PASSWORD"):
        files.parse(CLUSTER, b"0123456789abcdef", content)


def test_files_are_read_from_their_paths(tmp_path: Path) -> None:
    for name, text in (("secret", "0123456789abcdef\n"), ("password", "u:p\n"), ("ca", "PEM\n")):
        (tmp_path / name).write_text(text)
    cluster = ClusterConfig(
        secret_file=f"{tmp_path}/secret", password_file=f"{tmp_path}/password", ca_file=f"{tmp_path}/ca"
    )
    found = files.read(cluster)
    assert (found.user, found.password, found.certificates) == ("u", "p", "PEM\n")
    (tmp_path / "secret").unlink()
    with pytest.raises(FileNotFoundError, match="secret"):
        files.read(cluster)


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("valkey://mx.example", ServerUrl("mx.example"), "mx.example:6379"),
        ("redis://192.0.2.1:7/", ServerUrl("192.0.2.1", 7), "192.0.2.1:7"),
        ("valkeys://[2001:db8::1]:7/5", ServerUrl("2001:db8::1", 7, database=5, tls=True), "[2001:db8::1]:7"),
        ("rediss://mx", ServerUrl("mx", tls=True), "mx:6379"),
        ("unix:///run/a%20b.sock?db=2", ServerUrl(path="/run/a b.sock", database=2), "unix:/run/a b.sock"),
    ],
)
def test_server_urls(text: str, url: ServerUrl, shown: str) -> None:
    assert parse_server_url(text) == url
    assert str(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "mx.example",
            "mx.example:6379",
            "http://mx",
            "redis://",
            "redis://mx:x",
            "redis://mx:70000",
            "redis://[::1",
        ),
        *("redis://mx/x", "redis://mx/-1", "redis://mx?db=1", "unix:relative", "unix://host/path", "unix:///a?db=x"),
        "redis://user:secret@mx",
    ],
)
def test_malformed_server_urls(text: str) -> None:
    with pytest.raises(ValueError, match=r"; .*expected") as caught:
        parse_server_url(text)
    assert "user" not in str(caught.value) and "\n" not in str(caught.value)
