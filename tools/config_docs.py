"""Writes docs/configuration.md and contrib/fastscreen.toml: `python -m tools.config_docs`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from fastscreen.config.keys import KEYS, TABLES, Key, Restart

INTRODUCTION = """\
# Configuration

The configuration is one TOML file, which `fastscreen run -c FILE` reads. Every key may be omitted; it then has the
default shown here. Where Postfix has the same setting, this is Postfix's default, unless
[differences.md](differences.md#settings) says otherwise. `contrib/fastscreen.toml` shows every key with its default.

`fastscreen check -c FILE` reads the file and everything that it names, and reports what is wrong. If fastscreen is
running, it also reports how the file differs from the configuration in use.

To apply a change, run `fastscreen reload` or send SIGHUP. If the file has errors, the running daemon keeps its
configuration and logs the first error. A few keys take effect only after a restart ([restart.md](restart.md)). They are
marked below, and each of them that has changed is named in the log and in the output of `fastscreen reload`.

Every command that reads the file reports all errors at once. Each error is one line that names the key, the line of the
file, and what is expected there:

```
fastscreen: FILE: line 8: action = enforce: text needs quotes; expected action = "enforce"
fastscreen: FILE: dnsbl.threshold: 0 is out of range; expected a whole number of at least 1 (line 9)
fastscreen: FILE: postscreen_greet_wait: unknown name, this is Postfix's name; expected wait = "3s" in [greet] (line 2)
```

* **Times** are whole numbers with a unit: `"90s"`, `"10m"`, `"12h"`, `"30d"`, `"1w"`. A number without a unit has the
  unit that is given for the key, as in Postfix.
* **Sizes** are in bytes. Where the description of a key says so, they can have a unit: `"512M"`, `"1G"`.
* **Actions** say what happens to a client that fails a test. `ignore` logs the failure and lets the client continue;
  the test is repeated at its next connection (a test in `[deep]` or `[score]`: after the shortest of the `ttl` keys and
  `dnsbl.min_ttl`, by default 60 s). `shadow` does the same and also logs what `enforce` would have replied
  ([shadow.md](shadow.md)). `enforce` completes the other tests and rejects every recipient with a 550 reply. `drop`
  disconnects the client immediately with a 521 reply. Actions can be written in uppercase or lowercase, and `continue`
  is accepted as a synonym of `ignore`, as in Postfix.
* **Tables** are written `TYPE:NAME`, as in Postfix. The types are `cidr`, `texthash`, `inline`, `static`, `regexp` and
  `pcre`. Postfix's hash, btree and lmdb files are binary; `postmap -s hash:/etc/postfix/x > x.txt` converts one for use
  with `texthash:`. One search in a `regexp` or `pcre` table may take at most 50 ms; after that the rule does not match,
  and a warning is logged.
* **Errors in tables:** a bad line in a table, or a bad entry in a file of networks, is skipped with a warning at
  startup and reload. A table or file that cannot be read is an error in the configuration.
* **Open files:** each session under test, hand-off and relayed session needs one or two file descriptors. If it is
  started as root, fastscreen raises the limit on open files as far as the configuration needs and the system allows;
  otherwise set `LimitNOFILE=` in the systemd unit. If the limit is too low, `limits.pre_queue`, `limits.post_queue` and
  `limits.relay` share it: each gets the value that it is set to or an equal share of what remains, whichever is less,
  and a warning names the setting and the limit that it needs.

## Environment variables

Containers can set keys in the environment. Variables are read only if `FASTSCREEN_ENVIRONMENT` is `read`, which is the
case in the [container image](containers.md); without it, or with `ignore`, no variable has an effect.

The variable of a key is `FASTSCREEN_`, the table, two underscores, and the name, all in uppercase. A key at the top of
the file has no table:

```
FASTSCREEN_HOSTNAME=mx.example.com
FASTSCREEN_DNSBL__THRESHOLD=3
FASTSCREEN_DNSBL__SITES=["zen.spamhaus.org*3", "bl.spamcop.net*2"]
FASTSCREEN_GREET__WAIT=6s
FASTSCREEN_LISTEN__PROXY=[{addresses = ["0.0.0.0:2526"], trusted = ["10.0.0.0/8"]}]
```

* A value is written as in the file, except that text needs no quotes. Text that would be a number, such as a
  `log.ident` of digits, needs them: `"25"`.
* A variable has priority over the file. An empty variable is ignored; `""` is the empty text.
* Values are checked like those of the file, and an error names the variable:
  `environment: FASTSCREEN_DNSBL__THRESHOLD: 0 is out of range; expected a whole number of at least 1`. A variable with
  two underscores that does not belong to a key is an error, and so is one with a single underscore in place of the two.
  All other variables are ignored, among them those that Docker and Kubernetes create for a service named `fastscreen`.
* Every command that reads the configuration reads the variables of its own environment. At a reload and a restart, the
  daemon reads the file again, but its variables stay as they were at the start. `fastscreen check` lists the keys that
  variables set.
* Everyone who may inspect the container can read its variables. Passwords are in files anyway; write `dnsbl.sites` into
  the file as well if a name in it contains your key of a DNS list.

## Example

A configuration for a first test in place of postscreen, on the same machine as Postfix. The changes to `master.cf` are
in [mta-postfix.md](mta-postfix.md).

```toml
hostname = "mx.example.com"
user = "postfix"

[access]
list = ["permit_mynetworks", "cidr:/etc/fastscreen/access.cidr"]
mynetworks = ["192.0.2.0/24"]

[greet]
action = "enforce"

[dnsbl]
sites = ["zen.spamhaus.org=127.0.0.[2..11]*3", "list.dnswl.org=127.0.[0..255].[1..3]*-2"]
threshold = 3
action = "enforce"

[log]
to = "syslog"
ident = "postfix/postscreen"
```

This page is generated from the table in `fastscreen/config/keys.py`. Change that table instead of this page.
"""

# ---- one renderer for each form of text

_INLINE = re.compile(r"(?P<code>`+)(?P<text> ?.+? ?)(?P=code)|\[(?P<label>[^\]]+)\]\((?P<target>[^)]+)\)", re.DOTALL)


def spans(markdown: str) -> Iterator[tuple[str, str]]:
    """The parts of a text: ("text", ...), ("code", ...) and ("link", TARGET). Other marks are ordinary characters."""
    at = 0
    for found in _INLINE.finditer(markdown):
        if found.start() > at:
            yield "text", markdown[at : found.start()]
        if found["code"]:
            yield "code", found["text"].strip(" ")
        else:
            yield "link", found["target"]
        at = found.end()
    if at < len(markdown):
        yield "text", markdown[at:]


def plain(markdown: str) -> str:
    """As text without marks: a link is the path of the page in the source tree, and a word of code is in quotes, as
    otherwise it could be taken for a word of the sentence.
    """
    return "".join(
        linked(text) if kind == "link" else f'"{text}"' if kind == "code" and re.fullmatch("[a-z]+", text) else text
        for kind, text in spans(markdown)
    )


def linked(target: str) -> str:
    """A link's target as text; pages are named from the top of the source tree."""
    return target if "/" in target else f"docs/{target}"


def escaped_markdown(text: str) -> str:
    """A text with no marks but those of code, as Markdown."""
    return "".join(f"`{part}`" if kind == "code" else re.sub(r"([\\*])", r"\\\1", part) for kind, part in spans(text))


def page() -> str:
    """docs/configuration.md."""
    parts = [INTRODUCTION]
    for table, keys in groupby(KEYS, lambda key: key.table):
        parts.append(f"## {f'[{table}]' if table else 'At the top of the file'}\n\n{TABLES[table]}\n")
        parts.extend(_entry(key) for key in keys)
    return "\n".join(parts)


def _entry(key: Key) -> str:
    lines = [f"### `{key.key}`", "", key.about, "", f"* Default: `` {key.default} ``"]
    lines.append(f"* Expected: {escaped_markdown(key.kind.expected)}")
    if key.parameters:
        new, *old = (f"`{name}`" for name in key.parameters)
        both = "" if _is_alias(key) else "and "
        others = f" ({both}{', '.join(old)})" if old else ""
        parents = f", which defaults to `{key.parents[0]}`" if key.parents else ""
        lines.append(f"* In Postfix: {new}{others}{parents}")
    if key.restart is not Restart.NOT_NEEDED:
        lines.append(f"* *{key.restart}*")
    return "\n".join(lines) + "\n"


def _is_alias(key: Key) -> bool:
    """Whether further names are old ones; of a deep test and of a PROXY port, two parameters became one key."""
    return not key.parameters[0].endswith(("_enable", "_protocol"))


def example() -> str:
    """contrib/fastscreen.toml: with the first # of each line removed, it loads to the defaults."""
    lines = [
        "## fastscreen: every key with its default. To change a value, remove the # in front of its line.",
        "## docs/configuration.md also lists the values that each key accepts and the name that Postfix has for it.",
    ]
    for table, keys in groupby(KEYS, lambda key: key.table):
        lines += ["", f"#[{table}]"] if table else []
        for key in keys:
            text = plain(f"{key.about} {key.restart}".rstrip())
            lines += ["", *(f"## {line}" for line in textwrap.wrap(text, 110, break_long_words=False))]
            lines.append(f"#{key.name} = {key.default}")
    return "\n".join(lines) + "\n"


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    (root / "docs/configuration.md").write_text(page())
    (root / "contrib/fastscreen.toml").write_text(example())


if __name__ == "__main__":
    main()
