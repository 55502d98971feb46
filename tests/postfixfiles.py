"""Files of Postfix for the import: main.cf and master.cf with valid and invalid values of all that it reads."""

import contextlib
import dataclasses
import functools
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from fastscreen.postfix.defaults import DEFAULTS, TLS


def listed(text: str) -> list[str]:
    return text.split()


# "@" is the folder of the files below
TIMES = listed("5s 9999w 3000000000s 0 +5 7 30d 90mh ${stress?{1}:{4}}s 3s# soon")
NUMBERS = listed("0 1 -1 5 50 99999999999999999999 0x10 3.5")
ACTIONS = listed("ignore enforce drop continue Enforce explode")
FLAGS = listed("yes no Yes maybe on")
NETWORKS = listed("""
127.0.0.0/8 [::1]/128 ::1 fe80::1%eth0 10.0.0.1/8 !10.0.0.0/8 192.0.2.0/255.255.255.0 10.0.0.0/33 @/nets @/gone !@/nets
static:all cidr:@/good.cidr mx.example.net @ 2001:db8::/32 [2001:db8::/32] 010.0.0.0/8 0.0.0.0/0
""")
TABLES = listed("""
cidr:@/good.cidr cidr:@/gone cidr:@/bad.cidr hash:@/good.cidr hash:@/gone pcre:@/patterns regexp:@/patterns pcre:@/gone
texthash:@/pairs mysql:@/gone proxy:cidr:@/good.cidr inline:{a=b} inline:{} static:permit cidr:{{10.0.0.0/8} cidr:@
regexp:{{/(/x}} pcre:{{/^a/b}} static: unionmap:{cidr:@/good.cidr} hash: @/words !pcre:@/patterns
""")
SITES = listed("""
zen.example*3 a.example=127.0.0.[0..255]*2 a.example*99999999999 .x free b.example=1.2 key.zen.example*-2 a.example
""")
LISTS = listed("permit_mynetworks permit reject dunno PERMIT permit_auth 8bitmime silent-discard GET POST")
TLS_WORDS = listed("""
none may encrypt secure 1 3 high medium null >=TLSv1.2 <=TLSv1.3 !TLSv1 TLSv9 >=TLSv1.4 aNULL !RC4 "ECDHE-RSA-AES128"
@/mx.key @/mx.pem @/other.key @/other.pem @/gone.pem @/nets relative.pem @ HIGH:!NOSUCH
""")
NAMES = listed("mx.example.test mx -x a..b localhost @/maillog @/gone/maillog @ /dev/stdout postfix nobody root nouser")
PLACES = listed("all loopback-only 127.0.0.1 127.0.0.9 [::1] 198.51.100.7 2001:db8::7 ipv4 ipv6 no..such")
ODD = [
    *listed("""$u0 ${u0?x} ${u1:yes} $u1 $nobody ${nobody:3} $$ ${ $ { } ' " \\ \\n \\400 # #x haproxy"""),
    *("\x1b[31m", "\0", "\x7f", "\u00e9", "\u0663"),
]
POOLS = (TIMES, NUMBERS, ACTIONS, FLAGS, NETWORKS, TABLES, SITES, LISTS, TLS_WORDS, NAMES, PLACES, ODD)
SIGNS = st.sampled_from([" = ", "=", " =\t"])
SEPARATORS = st.sampled_from([" ", ", ", "\n  ", "\n# between\n\t"])


def pools_of(name: str) -> list[list[str]]:
    """What is likely in a parameter; anything may be in any."""
    parts = {
        ("_time", "_wait", "_ttl", "_interval", "_timeout"): TIMES,
        ("_limit", "_threshold", "_level", "loglevel"): NUMBERS,
        ("_action",): ACTIONS,
        ("_enable", "_required", "_command", "_tls", "bounce", "logging"): FLAGS,
        ("mynetworks", "allowlist_interfaces", "whitelist_interfaces"): NETWORKS,
        ("_maps", "_map", "_filter", "_access_list", "_commands", "cache_map"): TABLES,
        ("_sites",): SITES,
        ("_access_list", "_keywords", "_commands"): LISTS,
        ("_file", "_files", "ciphers", "cipherlist", "protocols", "security_level"): TLS_WORDS,
        ("hostname", "mydomain", "mail_owner", "maillog_file"): NAMES,
        ("inet_interfaces", "inet_protocols"): PLACES,
    }
    return [pool for endings, pool in parts.items() if name.endswith(endings)] or list(POOLS)


@st.composite
def values(draw: st.DrawFn, name: str) -> str:
    pool = [word for each in pools_of(name) for word in each]
    word = st.one_of(st.sampled_from(pool), st.sampled_from(pool), st.sampled_from([w for p in POOLS for w in p]))
    text = draw(word)
    for more in draw(st.lists(word, max_size=3)):
        text += draw(SEPARATORS) + more
    return draw(st.sampled_from(["{}", "{}", "{}", '"{}"', "{} # a comment", "{}  "])).format(text)


SET = [
    name
    for name in [*DEFAULTS, "myhostname", "mydomain", "u0", "u1"]
    if not name.startswith(("postscreen_tls_", "tlsproxy_tls_")) or name.endswith("chain_files")
]
assert len(SET) > len(DEFAULTS) - 2 * len(TLS)
SETTING = st.sampled_from(SET).flatmap(lambda name: st.tuples(st.just(name), values(name)))
SERVICE = st.tuples(
    st.sampled_from(
        ["smtp", "127.0.0.1:smtp", "[::1]:2525", "10025", "198.51.100.7:25", "99999", "a:b:c", "[]", ":25", "\u00e9"]
    ),
    st.sampled_from(["postscreen", "postscreen", "postscreen", "smtpd"]),
    st.lists(st.one_of(st.just(("postscreen_upstream_proxy_protocol", "haproxy")), SETTING), max_size=2),
)


@dataclasses.dataclass(frozen=True)
class Files:
    main: str
    master: str


@st.composite
def files(draw: st.DrawFn) -> Files:
    main = ""
    for name, value in draw(st.lists(SETTING, max_size=12)):
        main += f"{name}{draw(SIGNS)}{value}\n"
        main += draw(st.sampled_from(["", "", "# a comment\n", "\n", "  # another\n"]))
    master = ""
    for name, command, options in draw(st.lists(SERVICE, min_size=1, max_size=3)):
        master += f"{name} inet n - n - 1 {command}\n"
        for option, value in options:
            flat = " ".join(line for line in value.split("\n") if not line.startswith("#"))
            master += f"  -o {{ {option} = {flat} }}\n" if flat.count("{") == flat.count("}") else ""
    return Files(main, master + "tlsproxy unix - - n - 0 tlsproxy\n")


@functools.cache
def _certificates() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as made:
        for name in ("mx", "other"):
            key, chain = Path(made, f"{name}.key"), Path(made, f"{name}.pem")
            options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
            command = ["openssl", "req", "-x509", *options, "-keyout", str(key), "-out", str(chain)]
            subprocess.run(command, check=True, capture_output=True)
            found |= {each.name: each.read_bytes() for each in (key, chain)}
    return found


@contextlib.contextmanager
def folder_with(made: Files) -> Iterator[Path]:
    """A configuration folder with files that may be named in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "good.cidr").write_text("192.0.2.1 permit\n")
        (folder / "bad.cidr").write_text("192.0.2.1 permit\nnonsense\n192.0.2.0/255.255.255.0 reject\n")
        (folder / "nets").write_text("192.0.2.11\nsmarthost.example.net # ours\n")
        (folder / "patterns").write_text("/a(b)/ permit\n/(/ reject\n")
        (folder / "pairs").write_text("zen.example lists\n")
        (folder / "words").write_text("HELP\n")
        for each, content in _certificates().items():
            (folder / each).write_bytes(content)
        for each, text in (("main.cf", made.main), ("master.cf", made.master)):
            (folder / each).write_text(text.replace("@", name), "utf-8", "replace")
        yield folder
