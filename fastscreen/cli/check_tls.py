"""Checks of [tls]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from fastscreen.config import Config
from fastscreen.escaping import escape_text
from fastscreen.tls.context import ContextError, chains, new_context
from fastscreen.tls.expiry import validity
from fastscreen.tls.key_reader import read_files

Found = tuple[str, bool, str]  # the first fields of check.Check


def checked_certificates(config: Config, user: str) -> Iterator[Found]:
    """Load what `run` would load, as the user that starts it. user: the user that it switches to."""
    settings = config.tls
    if not settings.certificates:
        if settings.level == "none":
            yield "tls.level", True, "none: STARTTLS is disabled"
        return
    try:
        files = read_files(settings.certificates, user)
    except OSError as error:
        yield "tls.certificates", False, f"{escape_text(str(error.filename))}: {error.strerror}"
        return
    try:
        found = chains(files.contents())
        new_context(settings, found)
        now = datetime.now(UTC)
        for chain in found:
            yield "tls.certificates", *validity(chain, now)
    except ContextError as error:
        key, _, what = str(error).partition(": ")
        yield key, False, what
    finally:
        files.close()


def checked_renewal(config: Config, root: bool) -> Iterator[Found]:
    """Whether new certificates can be read at SIGHUP. root: whether `run` starts as root."""
    for path in config.tls.certificates:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except PermissionError:
            if root:
                who = "a process with that right reads a new file at SIGHUP"
                yield "tls.certificates", True, f"{escape_text(path)}: only root may read this file; {who}"
        except OSError:  # already reported
            continue
