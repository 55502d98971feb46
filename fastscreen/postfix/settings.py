"""The settings that a postscreen runs with: Postfix's defaults, main.cf over them, the service's `-o` over both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from fastscreen.escaping import escape_text
from fastscreen.postfix import files
from fastscreen.postfix.defaults import DEFAULTS, RAW
from fastscreen.postfix.files import ReadError, Service
from fastscreen.screening.macros import MacroError, Parameters, expand

_ONE_NAME = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|\(([A-Za-z0-9_]+)\)|([A-Za-z0-9_]+))")
_COMMENT = re.compile(r"(?:\A|\s+)#", re.ASCII)  # main.cf has none behind a value; people write them all the same
_SECONDS = 30
_WHERE_DEBIAN_HAS_IT = "/usr/sbin"


def postconf_program() -> str | None:
    """Where Postfix's own reader is; None: there is none."""
    return shutil.which("postconf", path=f"{os.environ.get('PATH', os.defpath)}:{_WHERE_DEBIAN_HAS_IT}")


class Parameter(Struct, frozen=True):
    """A parameter that is set. where: `main.cf`, or `-o` and the service's name."""

    name: str
    text: str
    where: str


class Settings:
    """What one service sees. Values are as its process has them, after expansion.

    unknown: names in the values that were asked for which are set nowhere and have no default here.
    """

    def __init__(
        self,
        main: Mapping[str, str],
        service: Service | None,
        postconf: Postconf | None,
        folder: Path = Path("/etc/postfix"),
    ) -> None:
        """folder: `$config_directory`. Raises ReadError: `postconf` refuses something."""
        self.without_comments = False  # whether `value` ends where a # begins a word
        self._options = dict(service.options) if service else {}
        self._where = f"-o of {service.full_name}" if service else ""
        self._main = main
        self._raw = {**DEFAULTS, "config_directory": str(folder), **main, **self._options}
        host, _, domain = self._raw.get("myhostname", "").partition(".")
        if host and "mydomain" not in host + domain:
            self._raw.setdefault("mydomain", domain or "localdomain")
        self._stressed = {**self._raw, "stress": "yes"}
        self._asked = postconf.values(self._options) if postconf else {}
        self._asked_stressed = postconf.values({**self._options, "stress": "yes"}) if postconf else {}
        self.unknown: set[str] = set()

    def value(self, name: str, *, stress: bool = False) -> str:
        """A parameter's value; empty: it is empty, or unknown. Raises ReadError."""
        value = self._value(name, stress)
        return _COMMENT.split(value, maxsplit=1)[0] if self.without_comments else value

    def _value(self, name: str, stress: bool) -> str:
        raw = self._stressed if stress else self._raw
        asked = (self._asked_stressed if stress else self._asked).get(name)
        names = Parameters(raw)
        try:
            own = self._once(name) if name in RAW else expand(raw.get(name, ""), names)
        except MacroError as error:
            if asked is not None:
                return asked
            raise ReadError(f"{name} = {escape_text(raw.get(name, ''))}: {error}") from None
        # postconf makes one space of any white space, so where both say the same ours is exact.
        if asked is not None and name not in RAW and own.split() != asked.split():
            return asked
        self.unknown.update(names.unknown)
        return own

    def _once(self, name: str) -> str:
        """A raw value: when it is the name of a parameter alone, that one's value as written (reference 1.1)."""
        text = self._raw.get(name, "")
        found = _ONE_NAME.fullmatch(text)
        named = found and (found[1] or found[2] or found[3])
        return self._raw[named] if named and named in self._raw else text

    def origin(self, *names: str) -> Parameter | None:
        """The first of these that somebody has set; None: all are Postfix's own."""
        for name in names:
            if name in self._options:
                return Parameter(name, self._options[name], self._where)
            if name in self._main:
                return Parameter(name, self._main[name], "main.cf")
        return None

    def set_names(self) -> list[str]:
        """Every parameter that main.cf or the service sets, in their order."""
        return list({**self._main, **self._options})


class Postconf:
    """`postconf -c DIR`, Postfix's own reader."""

    def __init__(self, program: str, folder: Path) -> None:
        self._command = [program, "-c", str(folder)]

    def values(self, options: Mapping[str, str]) -> dict[str, str]:
        """All parameters that this Postfix knows, expanded, under these `-o`. Raises ReadError."""
        words = ["-x"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        found: dict[str, str] = {}
        for line in self._said(*words).splitlines():
            name, equals, value = line.partition("=")
            if equals:
                found[name.strip()] = value.strip()
        return found

    def _said(self, *words: str) -> str:
        try:
            done = subprocess.run(
                [*self._command, *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReadError(f"postconf: {escape_text(str(error), 500)}") from None
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ReadError(escape_text(told[-1] if told else f"postconf: exit code {done.returncode}", 500))
        return done.stdout.decode("utf-8", "replace")


class Postfix(Struct, frozen=True):
    """One configuration folder. main: what main.cf sets; services: master.cf's. notes: what was odd in reading them.

    seen: the settings that were asked for, by service; each costs two runs of postconf.
    """

    folder: Path
    main: dict[str, str]
    services: list[Service]
    postconf: Postconf | None
    notes: list[str] = []
    seen: dict[str, Settings] = {}

    def settings(self, service: Service | None) -> Settings:
        """What a service sees, without postconf where that refuses it: as with the addresses of another machine."""
        name = service.full_name if service else ""
        if name not in self.seen:
            self.seen[name] = self._settings(service)
        return self.seen[name]

    def _settings(self, service: Service | None) -> Settings:
        folder = self.folder.absolute()
        if not self.notes:
            try:
                return Settings(self.main, service, self.postconf, folder)
            except ReadError as error:
                self.notes.append(f"{error}: read without postconf")
        return Settings(self.main, service, None, folder)

    def postscreens(self) -> list[Service]:
        return [service for service in self.services if service.command == "postscreen"]

    def called(self, name: str, kind: str) -> Service | None:
        return next((service for service in self.services if (service.name, service.kind) == (name, kind)), None)


def read(folder: Path, postconf: str | None) -> Postfix:
    """Read main.cf and master.cf. postconf: the program, None: without it. Raises ReadError."""
    main_path, master_path = folder / "main.cf", folder / "master.cf"
    main = files.parameters(files.read(main_path), escape_text(str(main_path), 500))
    services = files.services(files.read(master_path), escape_text(str(master_path), 500))
    # Of master.cf postconf makes something else where an option is written -oNAME=VALUE, which every daemon reads.
    program = Postconf(postconf, folder.absolute()) if postconf else None
    return Postfix(folder, main, services, program)
