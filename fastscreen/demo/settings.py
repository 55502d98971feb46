"""The configuration of fastscreen in the demo."""

from __future__ import annotations

import json
from pathlib import Path

from fastscreen.demo import client_kinds
from fastscreen.demo.lists import ALLOWLIST_THRESHOLD, LISTS, SECRET, THRESHOLD

WORKERS = 2
GREET_WAIT = 2  # s; with postscreen's 6 s the first results would take too long
MAX_PER_CLIENT = 8  # simultaneous connections of one client
PRE_QUEUE = 220  # so that each wave of the botnet causes stress for a moment

CONTROL, LOG, ACCESS, SYSTEMS = "control", "log", "access.cidr", "as.csv"
"""Files in the demo's folder."""


def configuration(folder: Path, resolver: int) -> str:
    """The configuration file. folder: of the demo. resolver: the port of the name server on 127.0.0.1."""
    masks = " ".join(f"{each.domain}={each.domain.removeprefix(SECRET + '.')}" for each in LISTS)
    values: dict[str, dict[str, object]] = {
        "": {"hostname": "mx.demo.example", "banner": "mx.demo.example ESMTP"},
        "listen": {"addresses": ["127.0.0.1:0"], "workers": WORKERS},
        "handoff": {"to": "sink:"},
        "control": {"path": str(folder / CONTROL)},
        "access": {"list": [f"cidr:{folder / ACCESS}"], "denylist_action": "enforce"},
        "greet": {"wait": f"{GREET_WAIT}s", "action": "enforce"},
        "dnsbl": {
            "sites": [each.site for each in LISTS],
            "threshold": THRESHOLD,
            "allowlist_threshold": ALLOWLIST_THRESHOLD,
            "action": "enforce",
            "reply_map": f"inline:{{{masks}}}",
            "timeout": "1s",
            "resolvers": [f"127.0.0.1:{resolver}"],
        },
        "deep": {"pipelining": "enforce", "non_smtp_command": "drop", "bare_newline": "enforce"},
        "cache": {"path": str(folder / "cache")},
        "history": {"path": str(folder / "history")},
        "score": {"memory": str(folder / "offenses"), "as_file": str(folder / SYSTEMS)},
        "limits": {"client_connection_count": MAX_PER_CLIENT, "pre_queue": PRE_QUEUE},
        "log": {"to": f"file:{folder / LOG}", "ident": "fastscreen"},
    }
    lines = []
    for table, keys in values.items():
        lines += [f"[{table}]"] if table else []
        # Strings, numbers and lists of strings are written the same in JSON and TOML.
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def access_list() -> str:
    """The table in access.list."""
    return f"{client_kinds.OWN.network}.0.0/16 permit\n{client_kinds.BANNED.network}.0.0/16 reject\n"


def systems() -> str:
    """The table in score.as_file: each kind of client is in an AS of its own, with a number for documentation."""
    return "".join(f"{kind.network}.0.0/16,{64496 + at % 16}\n" for at, kind in enumerate(client_kinds.CLIENT_KINDS))
