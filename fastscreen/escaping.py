"""Text from files, peers and exceptions as it may reach a message, a log or a terminal: printable, in one line."""

from __future__ import annotations

from typing import Any

MAX_TEXT = 1000  # characters of one value, before escaping
MAX_ERROR = 1000  # characters of an exception's own text
MAX_DEPTH = 12
MAX_NUMBER = 1e12  # later than any date that can be shown

_C_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}
_SHOWN = [_C_ESCAPES.get(octet) or (chr(octet) if 32 <= octet <= 126 else f"\\{octet:03o}") for octet in range(256)]


def escape_bytes(octets: bytes) -> str:
    """C escapes for all that is not printable ASCII, as in the log."""
    return "".join([_SHOWN[octet] for octet in octets[:MAX_TEXT]]) + ("..." if len(octets) > MAX_TEXT else "")


def printable(text: str) -> str:
    """The same for text of fastscreen's own; its backslashes are escapes already."""
    text = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
    if text.isascii() and text.isprintable():
        return text
    return escape_bytes(text.encode("utf-8", "surrogatepass")).replace("\\\\", "\\")


def cleaned(value: Any, depth: int = 0) -> Any:
    """The same structure with nothing in it that could reach a terminal other than as printable ASCII."""
    if isinstance(value, bytes):
        return escape_bytes(value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if abs(value) < MAX_NUMBER else 0.0  # also for what is not a number
    if value is None or isinstance(value, bool | int):
        return value
    if depth < MAX_DEPTH:
        if isinstance(value, dict):
            return {cleaned(key, depth + 1): cleaned(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [cleaned(item, depth + 1) for item in value]
    return printable(f"<{type(value).__name__}>")


def escape_text(text: str, most: int = 100) -> str:
    """Text from a file for a message: one line, printable, at most `most` characters of the original."""
    shown = "".join(char if char.isprintable() else _code(char) for char in text[:most])
    return shown + ("..." if len(text) > most else "")


def quoted(text: str, most: int = 100) -> str:
    """`escape_text`, in double quotes."""
    return f'"{escape_text(text, most)}"'


def _code(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(error: BaseException, most: int = MAX_ERROR) -> str:
    """What an exception says, for a person: `FILE: problem` for a file's OSError, its type if it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
    return " ".join(text.split())[:most] or type(error).__name__


def unexpected(error: BaseException, most: int = MAX_ERROR) -> str:
    """The same for an exception that points to a defect: `TypeError: problem`. Never raises."""
    name = type(error).__name__
    try:
        text = one_line(error, most)
    except Exception:
        text = "?"
    return name if text == name else f"{name}: {text}"
