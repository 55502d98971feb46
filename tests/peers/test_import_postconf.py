"""main.cf and master.cf are read as by Postfix's `postconf`."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from postfixfiles import Files, folder_with
from postfixfiles import files as files_of_postfix

from fastscreen.postfix import files
from fastscreen.postfix import settings as postfix_settings
from fastscreen.postfix.defaults import DEFAULTS, RAW
from fastscreen.postfix.files import Service
from fastscreen.postfix.settings import Postconf, Settings
from peers import needs
from peers.postfix import settled

# what depends on the machine or the version is always set
_FIXED = "myhostname = mx.example.test\nmydomain = example.test\nmynetworks = 127.0.0.0/8\npostscreen_cache_map = x:y\n"
PHASES = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # each example starts a program: too slow to look for a small one
_NUMBERED = [f"u{at}" for at in range(5)]  # each names only those before it
_SET = [
    "postscreen_greet_banner",
    "postscreen_greet_wait",
    "postscreen_dnsbl_sites",
    "postscreen_blacklist_action",
    "postscreen_denylist_action",
    "postscreen_dnsbl_ttl",
    "postscreen_whitelist_interfaces",
    "postscreen_forbidden_commands",
    "smtpd_banner",
    "smtpd_reject_footer",
    "smtpd_tls_chain_files",
    "smtpd_tls_key_file",
    "tlsproxy_tls_cert_file",
    "syslog_name",
    "multi_instance_name",
    "compatibility_level",
]

plain = st.text("abcz019.,;:*=_-[]/!\\ ", min_size=1, max_size=8)
SPACE = st.sampled_from([" ", "  ", "\t", "\n ", "\n\t# no comment?\n  ", "\n# a comment\n\n   "])


def names(most: int) -> st.SearchStrategy[str]:
    """Names that a value may have in it: lower numbers, known ones, unknown ones."""
    return st.sampled_from([*_NUMBERED[:most], "mail_name", "stress", "unknown_name", "inet_protocols"])


def value(most: int) -> st.SearchStrategy[str]:
    """A value with all forms of names."""
    name = names(most)
    text = st.text("abz01. ", max_size=5)
    inner = st.one_of(text, name.map("${}".format), name.map("${{{}}}".format))
    piece = st.one_of(
        plain,
        st.just("$$"),
        name.map("${}.".format),
        name.map("${{{}}}".format),
        name.map("$({})".format),
        st.builds("${{{}?{}}}".format, name, text),
        st.builds("${{{}:{}}}".format, name, text),
        st.builds("${{{}?{{{}}}}}".format, name, inner),
        st.builds("${{{}:{{{}}}}}".format, name, inner),
        st.builds("${{ {} ? {{{}}} : {{{}}} }}".format, name, inner, inner),
        st.builds(
            "${{{{{}}} {} {{{}}} ? {{{}}} : {{{}}}}}".format,
            inner,
            st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
            inner,
            inner,
            inner,
        ),
    )
    return st.lists(st.one_of(piece, SPACE), max_size=5).map("".join)


LINE = st.one_of(
    st.sampled_from(range(5)).flatmap(lambda at: value(at).map(lambda text: f"{_NUMBERED[at]} = {text}")),
    st.sampled_from([name for name in _SET if name != "compatibility_level"]).flatmap(
        lambda name: value(5).map(lambda text: f"{name}={text}")
    ),
    st.sampled_from(["compatibility_level = 3.6", "compatibility_level=2", "compatibility_level = 3.10"]),
    st.sampled_from(["# a comment", "", "   ", "\t# indented = comment", "policyd-spf_time_limit = 3600", "a.b:c=4"]),
)


def _folder(main: str, master: str = "") -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-"))
    (folder / "main.cf").write_text(main)
    settled(folder / "main.cf")
    (folder / "master.cf").write_text(master)
    return folder


@example(["u1 = 1", "smtpd_banner=a${u1? b }${u2:  c}${u1?{ d }:{e}}${u1?{f} : {g} }"], {})
@given(st.lists(LINE, max_size=12), st.dictionaries(st.sampled_from(["u1", "smtpd_banner"]), value(0)))
@settings(max_examples=50, deadline=None, phases=PHASES)
def test_values_as_postconf_has_them(lines: list[str], options: dict[str, str]) -> None:
    """Of every parameter that the import reads and this Postfix knows, under `-o` as well."""
    needs.program("postfix")
    options = {name: " ".join(text.split()) for name, text in options.items()}
    text = _FIXED + "\n".join(lines) + "\n"
    folder = _folder(text)
    try:
        asked = Postconf("/usr/sbin/postconf", folder).values(options)
    finally:
        shutil.rmtree(folder)
    line = files.Line(1, "", ())
    ours = Settings(files.parameters(text, "main.cf"), Service("smtp", "inet", "-", "postscreen", options, line), None)
    compared = [name for name in DEFAULTS if name in asked and name not in RAW]
    assert len(compared) > 100
    assert {name: ours.value(name).split() for name in compared} == {name: asked[name].split() for name in compared}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5\0 6\n 7\n", "5"),
        ("\0 5\n", ""),
        ("5\n 6\0 7\n 8\n", "5 6"),
        ("5\nmyhost\0name = x\n", None),
        ("5\n\0 = x\n", None),
    ],
)
def test_a_line_ends_at_a_nul(text: str, limit: str | None) -> None:
    needs.program("postfix")
    text = f"{_FIXED}default_process_limit = {text}"
    folder = _folder(text)
    try:
        if limit is None:
            with pytest.raises(files.ReadError):
                Postconf("/usr/sbin/postconf", folder).values({})
            with pytest.raises(files.ReadError):
                files.parameters(text, "main.cf")
        else:
            assert Postconf("/usr/sbin/postconf", folder).values({})["default_process_limit"] == limit
            assert files.parameters(text, "main.cf")["default_process_limit"] == limit
    finally:
        shutil.rmtree(folder)


@given(files_of_postfix())
@settings(max_examples=30, deadline=None, phases=PHASES)
def test_values_of_any_main_cf_as_postconf_has_them(made: Files) -> None:
    """Comments behind values, quotes, continuation lines, wrong values; what postconf refuses is refused."""
    needs.program("postfix")
    with folder_with(made) as folder:
        text = (
            _FIXED + (folder / "main.cf").read_text("utf-8", "replace") + "inet_interfaces = all\ninet_protocols=all\n"
        )
        (folder / "main.cf").write_text(text, "utf-8")
        settled(folder / "main.cf")
        (folder / "master.cf").write_text("")
        ours = Settings(files.parameters(text, "main.cf"), None, None, folder)
        try:
            asked = Postconf("/usr/sbin/postconf", folder).values({})
        except files.ReadError:
            with pytest.raises(files.ReadError):
                for name in ours.set_names():
                    ours.value(name)
            return
        # where the build has put it is what postconf knows alone
        compared = [name for name in DEFAULTS if name in asked and name not in RAW and name != "meta_directory"]
        assert {name: ours.value(name).split() for name in compared} == {name: asked[name].split() for name in compared}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["-o ", " -v -o "]),  # -oNAME=VALUE confuses postconf, and no daemon
            st.sampled_from(["postscreen_greet_wait", "mynetworks", "syslog_name"]),
            st.text("abc019.,:/", max_size=6),
            st.booleans(),
            st.sampled_from([" ", "\n  ", "\n# between\n  "]),
        ),
        max_size=5,
    )
)
@settings(max_examples=30, deadline=None, phases=PHASES)
def test_options_as_postconf_has_them(options: list[tuple[str, str, str, bool, str]]) -> None:
    """`-o` in its forms, over several lines; the last one wins."""
    needs.program("postfix")
    text = "smtp inet n - n - 1 postscreen"
    for before, name, given_value, braces, space in options:
        text += space + before + (f"{{ {name} = {given_value} }}" if braces else f"{name}={given_value}")
    master = f"{text}\nsmtpd pass - - n - - smtpd\n"
    folder = _folder(_FIXED, master)
    try:
        said = subprocess.run(
            ["/usr/sbin/postconf", "-c", str(folder), "-P"], check=True, capture_output=True, text=True
        ).stdout
    finally:
        shutil.rmtree(folder)
    asked = dict(line.split(" =", 1) for line in said.splitlines())
    (service, _) = files.services(master, "master.cf")
    ours = {f"smtp/inet/{name}": given_value for name, given_value in service.options.items()}
    assert ours == {name: given_value.strip() for name, given_value in asked.items()}


def test_a_mistake_is_postconfs_own_words(tmp_path: Path) -> None:
    needs.program("postfix")
    (tmp_path / "main.cf").write_text("nothing here\n")
    settled(tmp_path / "main.cf")
    (tmp_path / "master.cf").write_text("")
    with pytest.raises(files.ReadError, match="missing '=' after attribute name"):
        Postconf("/usr/sbin/postconf", tmp_path).values({})


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of `$config_directory` names the same file wherever fastscreen runs."""
    postconf = needs.program("postfix").replace("postfix", "postconf")
    (tmp_path / "main.cf").write_text(f"{_FIXED}postscreen_access_list = cidr:$config_directory/a.cidr\n")
    settled(tmp_path / "main.cf")
    (tmp_path / "master.cf").write_text("")
    monkeypatch.chdir(tmp_path)
    for program in (postconf, None):
        seen = postfix_settings.read(Path(), program).settings(None)
        assert seen.value("postscreen_access_list") == f"cidr:{tmp_path}/a.cidr"
