"""Modules that only some configurations need.

A forked process cannot be left to import them: it may not be allowed to read the program's files any more, and after an
upgrade these are another version's. So the supervisor imports them first, as root, and its processes share them.
"""

from __future__ import annotations

import importlib

from fastscreen.config import Config, ConfigError, Sink
from fastscreen.escaping import one_line
from fastscreen.offenses.rules import missing_for_mmdb


def preload(config: Config) -> None:
    """Import what this configuration needs. Raises ConfigError if an extra is not installed; ImportError."""
    if problem := missing_for_cluster(config):
        key = "server" if config.cluster.server else "sentinels"
        raise ConfigError(f"{config.source}: cluster.{key}: {problem}")
    if problem := missing_for_mmdb(config):
        raise ConfigError(f"{config.source}: score.as_file: {problem}")
    for module in modules(config):
        importlib.import_module(module)


def missing_for_cluster(config: Config) -> str:
    """Import what a cluster needs, if one is configured. Returns one line if that is not installed."""
    if not config.cluster.enabled:
        return ""
    try:
        importlib.import_module("hiredis")  # redis only misses it when it connects
        importlib.import_module("fastscreen.cluster.process")
    except ImportError as error:
        return f"{one_line(error)}; expected an installation with `pip install 'fastscreen[cluster]'`"
    return ""


def modules(config: Config) -> list[str]:
    """The modules, each of which brings a large library."""
    found = []
    if isinstance(config.handoff.to, Sink):
        found.append("fastscreen.mta.sink")  # aiosmtpd
    if config.metrics.listen is not None:
        found.append("fastscreen.control.metrics")  # prometheus_client
    if config.cluster.enabled:
        found.append("fastscreen.cluster.process")  # redis
    if config.history.path or config.score.memory:
        found.append("fastscreen.history.recorder")  # SQLite
    tables = repr(config)  # a table may be named in any key, and within another one
    if "regexp:" in tables or "pcre:" in tables:
        found.append("fastscreen.tables.patterns")  # regex
    return found
