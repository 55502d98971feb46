"""Modules that only some configurations need.

A forked process cannot be left to import them: it may not be allowed to read the program's files any more, and after an
upgrade these are another version's. So the supervisor imports them first, as root, and its processes share them.
"""

from __future__ import annotations

import importlib

from fastscreen.config import Config, Sink


def preload(config: Config) -> None:
    """Import what this configuration needs. Raises ImportError."""
    for module in modules(config):
        importlib.import_module(module)


def modules(config: Config) -> list[str]:
    """The modules, each of which brings a large library."""
    found = []
    if isinstance(config.handoff.to, Sink):
        found.append("fastscreen.mta.sink")  # aiosmtpd
    if config.metrics.listen is not None:
        found.append("fastscreen.control.metrics")  # prometheus_client
    if config.cluster.enabled:
        found.append("fastscreen.cluster.process")  # redis
    tables = repr(config)  # a table may be named in any key, and within another one
    if "regexp:" in tables or "pcre:" in tables:
        found.append("fastscreen.tables.patterns")  # regex
    return found
