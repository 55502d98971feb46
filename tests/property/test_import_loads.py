"""Whatever a main.cf says, what the import makes of it is a configuration that loads."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fastscreen import config
from fastscreen.cli import import_postfix
from fastscreen.postfix import output
from fastscreen.postfix import settings as postfix_settings
from fastscreen.postfix.defaults import DEFAULTS
from fastscreen.postfix.files import ReadError
from fastscreen.postfix.translate import translate

PRINTABLE = """
yes no 0 1 -1 99999999999999999999 5s 9999w 3000000000s +5 none may encrypt haproxy ipv4 all loopback-only high !aNULL
127.0.0.1 [::1] ::1 fe80::1%eth0 10.0.0.0/8 10.0.0.1/8 !10.0.0.0/8 !! /etc/x hash: proxy:mysql:/x inline:{a=b} static:
cidr:{{10.0.0.0/8} pcre:/x a.example=127.0.0.[0..255]*2 a.example*99999999999 .x >=TLSv1.2 !TLSv1 TLSv9 /dev/stdout
$ $$ ${ $x ${x?y} { } ' " \\ \\n \\400 relative/x enforce drop
"""
WORDS = [*PRINTABLE.split(), "\0", "\x1b[31m", "\r", "\x7f", "\u00e9", "\u0130", "\u0663", "\u00b2"]
VALUE = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), max_size=3).map(" ".join)
MASTER = st.sampled_from(["smtp", "127.0.0.1:smtp", "[::1]:2525", "99999", "a:b:c", "[]", ":25", "\u00e9", "\u0662"])


@given(
    st.dictionaries(st.sampled_from([*DEFAULTS, "myhostname", "mydomain"]), VALUE, max_size=12),
    MASTER,
    st.sampled_from(["postscreen", "smtpd"]),
)
@settings(deadline=None)
def test_it_loads(values: dict[str, str], name: str, command: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lines = [f"{key} = {' '.join(value.split(chr(10)))}\n" for key, value in values.items()]
        (folder / "main.cf").write_text("".join(lines), "utf-8", "replace")
        (folder / "master.cf").write_text(f"{name} inet n - n - 1 {command}\n")
        postfix = postfix_settings.read(folder, None)
        service = import_postfix.chosen(postfix, None)
        assert not isinstance(service, str)
        seen = postfix.settings(service)
        try:
            translated = translate(seen, seen, service)
        except ReadError:
            return  # of what Postfix refuses to start with, too
        (folder / "fastscreen.toml").write_text(output.toml(translated, "here", deep=True))
        config.load(folder / "fastscreen.toml")
