"""Writes docs/configuration.md and contrib/fastscreen.toml: `python -m tools.config_docs`."""

from __future__ import annotations

import textwrap
from itertools import groupby
from pathlib import Path

from fastscreen.config.keys import KEYS, TABLES, Key

INTRODUCTION = """\
# Configuration

The configuration is one TOML file: `fastscreen run -c FILE`. Every key may be left out; it then has the default shown
here, which is postscreen's. `fastscreen check -c FILE` reads the file and everything it names and says what is wrong.
`contrib/fastscreen.toml` shows every key with its default. After a change: SIGHUP. If the file has mistakes, the
running daemon keeps its old settings, and its log names the first one. Every command that reads the file shows all of
them, one line each, with the line of the file and what is expected there:

```
fastscreen: FILE: line 8: action = enforce: text needs quotes; expected action = "enforce"
fastscreen: FILE: dnsbl.threshold: 0 is out of bounds; expected a whole number from 1 (line 9)
fastscreen: FILE: postscreen_greet_wait: unknown name, this is Postfix's name; expected wait = "3s" in [greet] (line 2)
```

* Times are whole numbers with a unit: `"90s"`, `"10m"`, `"12h"`, `"30d"`, `"1w"`. A number alone has the unit that
  stands with the key, as in Postfix.
* Sizes are bytes; where a key says so, also with a unit: `"512M"`, `"1G"`.
* Actions: `ignore` only logs and lets the client on (and tests it again next time), `shadow` does the same and logs
  what `enforce` would have replied ([shadow.md](shadow.md)), `enforce` answers every recipient with 550 after the
  other tests were made, `drop` hangs up with 521 at once. In any case; `continue` is `ignore`.
* Tables are `TYPE:NAME` as in Postfix, with the types `cidr`, `texthash`, `inline`, `static`, `regexp` and `pcre`.
  Postfix's hash, btree and lmdb files are binary; `postmap -s hash:/etc/postfix/x > x.txt` makes a `texthash:` of them.
  In a `regexp` or `pcre` table one search may take 50 ms at most; then the rule does not match, and the log says so.
* A bad line in a table, or a bad entry in a file of networks, is skipped with a warning at start and reload. A table or
  file that cannot be read is a mistake in the configuration.
* Open files: each session under test, hand-off and relayed session needs one or two. Started as root, fastscreen raises
  the limit as far as the configuration needs it, where the system allows that; else `LimitNOFILE=` in the unit does.
  If there are fewer, `limits.pre_queue`, `limits.post_queue` and `limits.relay` share them: each gets what it asks for
  or an equal part of the rest, and a warning names the setting and the number that is needed.

A file for a first try beside Postfix:

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

This page is made from the table in `fastscreen/config/keys.py`; change that, not this.
"""


def page() -> str:
    """docs/configuration.md."""
    parts = [INTRODUCTION]
    for table, keys in groupby(KEYS, lambda key: key.table):
        parts.append(f"## {f'[{table}]' if table else 'At the top of the file'}\n\n{TABLES[table]}\n")
        parts.extend(_entry(key) for key in keys)
    return "\n".join(parts)


def _entry(key: Key) -> str:
    lines = [f"### `{key.key}`", "", key.about, "", f"* Default: `` {key.default} ``", f"* Allowed: {key.kind.allowed}"]
    if key.parameters:
        new, *old = (f"`{name}`" for name in key.parameters)
        both = "" if _is_alias(key) else "and "
        others = f" ({both}{', '.join(old)})" if old else ""
        parents = f", which defaults to `{key.parents[0]}`" if key.parents else ""
        lines.append(f"* In Postfix: {new}{others}{parents}")
    return "\n".join(lines) + "\n"


def _is_alias(key: Key) -> bool:
    """Whether further names are old ones; of a deep test and of a PROXY port, two parameters became one key."""
    return not key.parameters[0].endswith(("_enable", "_protocol"))


def example() -> str:
    """contrib/fastscreen.toml: with the first # taken off each line, it loads to the defaults."""
    lines = [
        "## fastscreen: every key with its default. Take the # off what you change.",
        "## What each key means, and what postscreen calls it: docs/configuration.md",
    ]
    for table, keys in groupby(KEYS, lambda key: key.table):
        lines += ["", f"#[{table}]"] if table else []
        for key in keys:
            text = key.about.replace("`", "").replace("**", "")
            lines += ["", *(f"## {line}" for line in textwrap.wrap(text, 110, break_long_words=False))]
            lines.append(f"#{key.name} = {key.default}")
    return "\n".join(lines) + "\n"


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    (root / "docs/configuration.md").write_text(page())
    (root / "contrib/fastscreen.toml").write_text(example())


if __name__ == "__main__":
    main()
