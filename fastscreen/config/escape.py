"""How text that came from a file is shown in a message."""

from __future__ import annotations


def escaped(text: str, most: int = 100) -> str:
    """One line, printable, at most `most` characters of the original."""
    shown = "".join(char if char.isprintable() else _code(char) for char in text[:most])
    return shown + ("..." if len(text) > most else "")


def quoted(text: str, most: int = 100) -> str:
    """`escaped`, in double quotes."""
    return f'"{escaped(text, most)}"'


def _code(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
