"""SIGHUP for the TLS processes: the files of `tls.certificates` are read again, as the user that fastscreen became."""

from __future__ import annotations

import time

import msgspec

from fastscreen import channel
from fastscreen.channel import Failed
from fastscreen.config.model import Tls
from fastscreen.forks import Silent, hear
from fastscreen.holdings import Holdings
from fastscreen.starttls import certificates
from fastscreen.starttls.certificates import Certificates

ANSWER_SECONDS = 10.0


def renew(held: Holdings, before: Tls) -> None:
    """Hand new settings, and the certificates as they are now, to the TLS processes.

    What cannot be read or used leaves what is in use, in every process and for those to come, with a warning.

    before: what was in force until now.
    """
    settings = held.config.tls
    if not settings.certificates:
        return
    now = held.certificates
    try:
        found = certificates.read(settings.certificates)
    except OSError as error:
        # Log rotation sends SIGHUP every day: that root alone may read what has not changed is no news then.
        if now is None or not isinstance(error, PermissionError) or not now.unchanged(settings.certificates):
            _warn(held, f"tls.certificates: {error.filename}: {error.strerror}")
        if now is None:
            return
        found = now
    problem = _hand_out(held, settings, found)
    if problem is not None:
        _warn(held, problem)
        if found is not now:
            found.close()
        settings = msgspec.structs.replace(settings, protocols=before.protocols, ciphers=before.ciphers)
        found = now if now is not None else found
    elif now is not None and found is not now:
        now.close()
    if problem is None or now is not None:
        held.certificates = found
        settings = msgspec.structs.replace(settings, certificates=found.paths)
    held.config = msgspec.structs.replace(held.config, tls=settings)


def _hand_out(held: Holdings, settings: Tls, found: Certificates) -> str | None:
    """What the first process that cannot use them says; None: all can. One that does not answer is started anew."""
    by = time.monotonic() + ANSWER_SECONDS
    config = msgspec.structs.replace(held.config, tls=msgspec.structs.replace(settings, certificates=found.paths))
    for place in held.tls:
        if not place.pid or place.channel is None:
            continue
        try:
            channel.send_reload(place.channel, config, {}, found.descriptors)
        except OSError:
            place.kill()
            continue
        match hear(place, by):
            case Failed(why):
                return why
            case Silent():
                held.warn(f"{place.name}: new certificates not taken over: no answer; it is started anew")
                place.kill()
    return None


def _warn(held: Holdings, problem: str) -> None:
    rest = "what is in use stays" if held.certificates is not None else "no TLS"
    held.warn(f"[tls] not taken over: {problem}: {rest}")
