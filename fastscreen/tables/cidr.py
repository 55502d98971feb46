"""Tables of networks: cidr_table(5). Reading and searching is the core's `NetworkTable`."""

from __future__ import annotations

from fastscreen.core import NetworkTable
from fastscreen.tables import braces
from fastscreen.tables.lines import read_text


class Cidr:
    """cidr:FILE or cidr:{{network result}, ...}; first match in file order.

    networks: what the core asks directly.
    """

    def __init__(self, spec: str, name: str) -> None:
        self.spec = spec
        text = braces.rules(spec, name) if name.startswith("{") else read_text(spec, name)
        self.networks = NetworkTable(text.encode("utf-8", "surrogateescape"), name)
        self.warnings: list[str] = list(self.networks.warnings)

    @property
    def results(self) -> list[str]:
        return self.networks.results

    def lookup(self, key: str) -> str | None:
        return self.networks.lookup(key)
