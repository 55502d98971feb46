"""Standard output in any locale: characters that it lacks are replaced, so that no command fails because of them."""

from __future__ import annotations

import codecs
import io
import sys

_INSTEAD = str.maketrans({"–": "-", "—": "-", "…": "...", "µ": "u", "×": "x", "│": "|", "─": "-", "█": "#"})
_HANDLER = "fastscreen.replace"


def allow_any_locale() -> None:
    """Have standard output replace characters that the locale lacks: `...` for an ellipsis, escapes for most others."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_HANDLER)


def print_utf8(text: str) -> None:
    """Write a file's content to standard output: UTF-8 whatever the locale is, as TOML has to be."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
    else:
        print(text, end="", flush=True)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_INSTEAD)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(_HANDLER, _replace)
