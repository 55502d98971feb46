"""Kinds of value of the [allowlist] and [denylist] tables."""

from __future__ import annotations

import re

from fastscreen.config import providers
from fastscreen.config.kinds import Text, one_of
from fastscreen.escaping import quoted

_DOMAIN = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])", re.ASCII
)


class Domain:
    """A domain whose SPF record is looked up."""

    expected = 'a domain, such as "example.com", in its ASCII form ("xn--...")'

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value).lower().removesuffix(".")
        if not _DOMAIN.fullmatch(text):
            raise ValueError(f"bad domain {quoted(text)}; expected {self.expected}")
        return text


class Group:
    """A group of providers."""

    expected = one_of(f'"{group}"' for group in providers.groups())

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value).lower()
        if text not in providers.groups():
            raise ValueError(f"unknown group {quoted(text)}; expected {self.expected}")
        return text


class Provider:
    """A provider's name, or also a domain."""

    def __init__(self, domains: bool = False) -> None:
        self.domains = domains
        self.expected = "a name that `fastscreen allowlist list` shows" + (", or a domain" if domains else "")

    def parse(self, value: object) -> str:
        text = Text(self.expected).parse(value).lower()
        if any(text == source.name for source in providers.known()):
            return text
        if self.domains and "." in text:
            return Domain().parse(text)
        raise ValueError(f"unknown provider {quoted(text)}; expected {self.expected}")
