"""The format of the dialogue files, and what a missing peer does to a run."""

import pytest
from peers import dialogue, needs, profiles
from peers.match import compare


def parsed(text: str) -> dialogue.Dialogue:
    return dialogue.parse("name", 3, text)


def test_escapes() -> None:
    assert dialogue.unescape(r"a\r\n\t\0\\\x7fé") == b"a\r\n\t\0\\\x7f\xc3\xa9"
    assert dialogue.unescape(r"x\{ab\r*3}y\{\xff*2}") == b"xab\rab\rab\ry\xff\xff"


def test_steps() -> None:
    found = parsed("client: bl1\nconnect b\n# nothing\nb-> QUIT\nb=> \\x00\nb<- 221 \nwithin 2.5 b\nhold 4\n")
    assert [(step.verb, step.name, step.data) for step in found.steps[:4]] == [
        ("connect", "b", b""),
        ("send", "b", b"QUIT\r\n"),
        ("send", "b", b"\0"),
        ("expect", "b", b"221 "),
    ]
    assert (found.steps[4].verb, found.steps[4].seconds) == ("within", 2.5)
    assert (found.steps[5].verb, found.steps[5].count) == ("hold", 4)
    assert found.address("bl1") == "127.20.3.11"


@pytest.mark.parametrize("line", ["flose", "client: nobody", "connect from nobody", "profil: deep", "within", "- 1< x"])
def test_mistakes_are_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"name\.txt line 2"):
        parsed(f"connect\n{line}\n")


def test_stated_difference_must_be_all() -> None:
    text = "connect\nclose\ndiffers: slug\n- log: theirs of $client\n+ log: ours\n"
    theirs, ours = ["1< a", "log: theirs of 127.10.3.11"], ["1< a", "log: ours"]
    assert compare(parsed(text), theirs, ours) == ""
    assert compare(parsed(text), theirs, theirs) != ""
    assert compare(parsed(text), [*theirs, "more"], ours) != ""
    assert compare(parsed("connect\nclose\n"), theirs, ours) != ""


def test_every_setting_has_a_counterpart() -> None:
    known, _ = profiles.load()
    for settings in known.values():
        assert profiles.to_postscreen(settings)["smtpd_banner"] == "mx.example.test ESMTP Postfix"
    with pytest.raises(ValueError, match="no postscreen parameter"):
        profiles.to_postscreen({"greet": {"wat": "1s"}})


def test_missing_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"no-such-program": ("/nonexistent", "some-package"), "nor-this": ("/nonexistent", "another")}
    monkeypatch.setattr(needs, "PROGRAMS", gone)
    monkeypatch.setattr(needs, "missed", [])
    monkeypatch.delenv("FASTSCREEN_TEST_PEERS", raising=False)
    assert needs.summary() == []
    with pytest.raises(pytest.skip.Exception):
        needs.program("no-such-program")
    assert needs.summary()[-1] == "install with: apt-get install --no-install-recommends another some-package"
    monkeypatch.setenv("FASTSCREEN_TEST_PEERS", "required")
    with pytest.raises(pytest.fail.Exception):
        needs.program("no-such-program")
