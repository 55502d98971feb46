"""The dialogue files: format and parser. tests/README.md shows the format to people."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from peers import postfixroot
from peers.postfixroot import Version

# client class -> IPv4 prefix (/16) of its addresses, and IPv6 prefix for the classes that have one
CLIENTS = {
    "unlisted": "127.10",
    "unlisted6": "2001:db8:10::",
    "bl1": "127.20",  # bl1.rbl.test, 127.0.0.2
    "bl1-6": "2001:db8:20::",
    "bl2": "127.21",  # bl2.rbl.test, 127.0.0.5
    "bl1-bl2": "127.22",  # both; 127.0.0.11 in bl2
    "bl2-high": "127.23",  # bl2.rbl.test, 127.0.0.20
    "wl": "127.25",  # wl.rbl.test
    "bl1-wl": "127.26",
    "outside": "127.27",  # odd.rbl.test answers 192.0.2.80
    "error-code": "127.28",  # odd.rbl.test answers 127.255.255.254
    "denylisted": "127.30",
    "allowlisted": "127.40",
    "mynetworks": "127.41",
    "dunno": "127.45",
    "discard": "127.46",  # has its own line in the EHLO discard map
    "crowd": "127.50",
    "balancer": "127.60",  # trusted to send a PROXY header
}

_STEP = re.compile(r"(?P<name>[a-z]\w*)?(?P<verb><-|->|=>)(?: (?P<text>.*))?$")
_REPEAT = re.compile(rb"\\\{(.+?)\*(\d+)\}", re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
VERBS = {"pause", "closed", "close", "half-close", "reset", "within", "not-before", "settled", "handshake"}
HEADERS = ("v1", "v2", "v2-tlv", "local")


@dataclass(frozen=True)
class Step:
    """One step. `name` is the connection's, empty for the latest one made without a name."""

    verb: str
    name: str = ""
    data: bytes = b""
    """send: the bytes; expect: how the awaited line begins."""
    seconds: float = 0.0
    client: str = ""
    """connect: the client class; proxy: of the client that the header names."""
    backup: bool = False
    """connect: to the server's other address."""
    count: int = 1
    """hold: how many connections."""


@dataclass
class Difference:
    """An expected difference: its slug in docs/differences.md, postscreen's lines, fastscreen's in their place."""

    slug: str
    bound: str = ""
    """"before" or "since" some releases; empty: every Postfix has it."""
    releases: list[Version] = field(default_factory=list)
    """The releases that made the change, one for each series that has it."""
    theirs: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)

    def holds(self, version: Version) -> bool:
        """Tell whether a Postfix has the difference."""
        if not self.releases:
            return True
        own = [first for first in self.releases if first[:2] == version[:2]]
        older = version < (own[0] if own else max(self.releases))
        return older == (self.bound == "before")


@dataclass
class Dialogue:
    """One file of tests/dialogues."""

    name: str
    number: int
    """Its place among all files: makes its client addresses its own."""
    round: int = 0
    """Counts how often this run plays it: every time from other addresses, so that no screener knows the client yet."""
    profile: str = "early"
    client: str = "unlisted"
    alone: bool = False
    divided: bool = False
    """About what each of several workers has for itself, such as its part of a limit: played with one."""
    settings: dict[str, object] = field(default_factory=dict)
    """Dotted key to value, over the profile's."""
    steps: list[Step] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def service(self) -> str:
        """The service it is played against: the profile's, or a separate one if it changes a setting."""
        return f"{self.profile}-{self.number}" if self.alone or self.settings else self.profile

    def address(self, client: str, index: int = 0) -> str:
        """Return the source address of a client class in this dialogue; `index` counts the crowd."""
        prefix = CLIENTS[client]
        if ":" in prefix:
            # A /64 for each: by default that is one client.
            return f"{prefix[:-1]}{(self.round + 1) * 256 + self.number + 1:x}::1"
        return f"{prefix}.{self.number}.{self.round * 40 + index + 11}"


def load(folder: Path) -> list[Dialogue]:
    """Read every dialogue of the folder, sorted by name."""
    return [parse(path.stem, number, path.read_text()) for number, path in enumerate(sorted(folder.glob("*.txt")))]


def parse(name: str, number: int, text: str) -> Dialogue:
    """Parse one file. ValueError says which line is wrong."""
    dialogue = Dialogue(name, number)
    for at, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            _line(dialogue, line)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{name}.txt line {at}: {line!r}: {error!r}") from None
    if not dialogue.steps:
        raise ValueError(f"{name}.txt: no steps")
    return dialogue


def unescape(text: str) -> bytes:
    r"""Return the bytes of a text with \r \n \t \0 \\ \xHH, and \{TEXT*N} for a repetition."""
    data = text.encode()

    def one(match: re.Match[bytes]) -> bytes:
        what = match[1]
        return bytes([int(what[1:], 16)]) if what.startswith(b"x") else _SIMPLE[what]

    def simple(part: bytes) -> bytes:
        return _ESCAPE.sub(one, part)

    out, start = b"", 0
    for match in _REPEAT.finditer(data):
        out += simple(data[start : match.start()]) + simple(match[1]) * int(match[2])
        start = match.end()
    return out + simple(data[start:])


def _line(dialogue: Dialogue, line: str) -> None:
    if line.startswith(("- ", "+ ")):
        difference = dialogue.differences[-1]
        (difference.theirs if line[0] == "-" else difference.ours).append(line[2:])
    elif match := _STEP.match(line):
        data = unescape(match["text"] or "")
        verb = "expect" if match["verb"] == "<-" else "send"
        end = b"\r\n" if match["verb"] == "->" else b""
        dialogue.steps.append(Step(verb, match["name"] or "", data + end))
    elif ": " in line:
        _header(dialogue, *line.split(": ", 1))
    else:
        dialogue.steps.append(_step(dialogue, line.split()))


def _header(dialogue: Dialogue, key: str, value: str) -> None:
    if key == "profile":
        dialogue.profile = value
    elif key == "client":
        CLIENTS[value]
        dialogue.client = value
    elif key == "alone":
        dialogue.alone = value == "yes"
    elif key == "divided":
        dialogue.divided = value == "yes"
    elif key == "set":
        dotted, text = value.split(" = ", 1)
        dialogue.settings[dotted] = tomllib.loads(f"value = {text}")["value"]
    elif key == "differs":
        slug, bound, *releases = [*value.split(), ""]
        if bound not in ("", "before", "since"):
            raise ValueError(f"{bound!r}: expected before or since")
        dialogue.differences.append(Difference(slug, bound, [postfixroot.parsed(each) for each in releases if each]))
    else:
        raise ValueError(f"header {key!r}: expected profile, client, alone, set or differs")


def _step(dialogue: Dialogue, words: list[str]) -> Step:
    verb, *rest = words
    if verb == "connect":  # connect [NAME] [from CLIENT] [at backup]
        backup = rest[-2:] == ["at", "backup"]
        rest = rest[:-2] if backup else rest
        client = rest[-1] if "from" in rest else dialogue.client
        CLIENTS[client]
        return Step(verb, rest[0] if rest and rest[0] != "from" else "", client=client, backup=backup)
    if verb == "proxy":  # proxy [NAME] v1|v2|v2-tlv|local
        HEADERS.index(rest[-1])
        return Step(verb, rest[0] if len(rest) > 1 else "", rest[-1].encode(), client=dialogue.client)
    if verb == "hold":  # hold N
        return Step(verb, count=int(rest[0]), client="crowd")
    if verb in ("pause", "within", "not-before"):
        return Step(verb, rest[1] if len(rest) > 1 else "", seconds=float(rest[0]))
    if verb in VERBS:
        return Step(verb, rest[0] if rest else "")
    raise ValueError(f"unknown step {verb!r}")
