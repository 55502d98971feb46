"""What a record says about a client's program and system, in short words (ext/dialect.pyx, ext/saved_syn.pyx)."""

from __future__ import annotations

from fastscreen.core import HISTORY_DIALECT, HISTORY_SYN_OPTIONS

_WORDS = {
    "label": "from:", "blank": "blank", "no_bracket": "nobracket", "blanks": "blanks", "trailing": "trailing",
    "size": "size", "body": "body", "parameter": "parameter", "starttls": "starttls", "auth": "auth", "noop": "noop",
    "other": "other", "data": "data", "rset": "rset", "quit": "quit",
}  # fmt: skip
_DELAY_SHIFT = 27
_SYN_KNOWN, _SYN_DF, _SYN_CUT, _SYN_MORE = 1, 4, 8, 16
_SYN_ROOM = 8


def dialect_text(number: int) -> str:
    """`EHLO lower nobracket quit 2ms`. Empty: the client sent nothing to the dummy SMTP engine."""
    if not number:
        return ""
    has = {name for bit, name in enumerate(HISTORY_DIALECT) if number >> bit & 1}
    words = []
    if "fallback" in has:
        words.append("EHLO+HELO")
    else:
        words += [name.upper() for name in ("helo", "ehlo") if name in has]
    if has & {"upper", "lower"}:
        words.append("mixed" if {"upper", "lower"} <= has else "upper" if "upper" in has else "lower")
    words += [word for name, word in _WORDS.items() if name in has]
    if delay := number >> _DELAY_SHIFT:
        words.append(_delay(delay - 1))
    return " ".join(words)


def syn_text(ip: int, tcp: int, options: int) -> str:
    """`ttl 64 df win 64240 mss 1460 ws 7 mss,sack,ts,nop,ws`. Empty: the packet is not known."""
    if not ip & _SYN_KNOWN:
        return ""
    words = [f"ttl {ip >> 8 & 0xFF}"]
    if ip & _SYN_DF:
        words.append("df")
    words.append(f"win {ip >> 16}")
    if tcp >> 16:
        words.append(f"mss {tcp >> 16}")
    if tcp & 0xFFFF:
        words.append(f"ws {(tcp & 0xFFFF) - 1}")
    kinds = [options >> 4 * at & 15 for at in range(_SYN_ROOM)]
    names = [HISTORY_SYN_OPTIONS[kind] if kind < len(HISTORY_SYN_OPTIONS) else str(kind) for kind in kinds if kind]
    if ip & _SYN_MORE:
        names.append("...")
    if ip & _SYN_CUT:
        names.append("cut")
    return " ".join([*words, *([",".join(names)] if names else [])])


def _delay(bits: int) -> str:
    """The lower end of the times (µs) with so many bits."""
    least = 1 << bits >> 1
    if least < 1000:
        return f"{least}µs"
    return f"{least // 1000}ms" if least < 1_000_000 else f"{least // 1_000_000}s"
