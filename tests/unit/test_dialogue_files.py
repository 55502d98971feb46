"""The format of the dialogue files, and what a missing peer does to a run."""

import pytest
from peers import dialogue, needs, profiles
from peers.match import compare

ANY = (3, 7, 11)


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
    assert compare(parsed(text), theirs, ours, ANY) == ""
    assert compare(parsed(text), theirs, theirs, ANY) != ""
    assert compare(parsed(text), [*theirs, "more"], ours, ANY) != ""
    assert compare(parsed("connect\nclose\n"), theirs, ours, ANY) != ""


def test_several_workers_log_in_no_particular_order() -> None:
    """Each connection's lines keep their order, and no line may be missing or other."""
    parts = ["1< a", "postscreen: warning: b", "postscreen: warning: c"]
    parts += [f"postscreen: {what} from [127.0.0.1]:#{number}" for number in (1, 2) for what in ("CONNECT", "PASS NEW")]
    swapped = [parts[at] for at in (0, 2, 1, 5, 3, 6, 4)]
    dialogue = parsed("connect\nclose\n")
    assert compare(dialogue, parts, swapped, ANY, workers=2) == ""
    assert compare(dialogue, parts, swapped, ANY, workers=1) != ""
    for wrong in ([parts[at] for at in (0, 1, 2, 4, 3, 5, 6)], parts[:-1], [*parts[:2], *parts[3:]]):
        assert compare(dialogue, parts, wrong, ANY, workers=2) != ""


def test_stated_difference_of_older_versions() -> None:
    """The difference is expected only of these versions: each series may have its own release with the correction."""
    text = "connect\nclose\ndiffers: slug before 3.7.21 3.10.12 3.11.5\n- old\n+ new\n"
    affected = [(3, 6, 30), (3, 7, 11), (3, 7, 20), (3, 8), (3, 10, 11), (3, 11), (3, 11, 4)]
    corrected = [(3, 7, 21), (3, 10, 12), (3, 11, 5), (3, 12), (4, 0)]
    for version in affected:
        assert compare(parsed(text), ["old"], ["new"], version) == ""
        assert compare(parsed(text), ["new"], ["new"], version) != ""
    for version in corrected:
        assert compare(parsed(text), ["old"], ["new"], version) != ""
        assert compare(parsed(text), ["new"], ["new"], version) == ""
    since = text.replace("before", "since")
    for version in affected + corrected:
        own = "new" if version in affected else "old"
        assert compare(parsed(since), [own], ["new"], version) == ""
    for wrong in ("before now", "until 3.11"):
        with pytest.raises(ValueError, match=r"name\.txt line 3"):
            parsed(f"connect\nclose\ndiffers: slug {wrong}\n")


def test_every_setting_has_a_counterpart() -> None:
    known, _ = profiles.load()
    for settings in known.values():
        assert profiles.to_postscreen(settings)["smtpd_banner"] == "mx.example.test ESMTP Postfix"
    with pytest.raises(ValueError, match="lacks a postscreen parameter"):
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
