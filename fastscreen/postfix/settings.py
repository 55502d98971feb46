"""The settings of a postscreen service: Postfix's defaults, overridden by main.cf, overridden by the service's `-o`."""

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
_COMMENT = re.compile(r"(?:\A|\s+)#", re.ASCII)  # after a value, which main.cf does not allow but people write
_TIMEOUT = 30  # s
_SBIN = "/usr/sbin"


def postconf_program() -> str | None:
    """The path of postconf; None if it is missing."""
    return shutil.which("postconf", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


class Parameter(Struct, frozen=True):
    """A parameter that is set explicitly. where: `main.cf`, or `-o` and the service's name."""

    name: str
    text: str
    where: str


class Settings:
    """The settings of one service, with expanded values as its process uses them.

    unknown: names in the requested values that are neither set nor have a default here.
    """

    def __init__(
        self,
        main: Mapping[str, str],
        service: Service | None,
        postconf: Postconf | None,
        folder: Path = Path("/etc/postfix"),
    ) -> None:
        """folder: `$config_directory`. Raises ReadError if `postconf` rejects something."""
        self.without_comments = False  # whether `value` is cut before a word that begins with #
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
        """The value of a parameter; empty if it is empty or unknown. Raises ReadError."""
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
        # postconf collapses white space, so our value is the exact one if both agree.
        if asked is not None and name not in RAW and own.split() != asked.split():
            return asked
        self.unknown.update(names.unknown)
        return own

    def _once(self, name: str) -> str:
        """A raw value; if it consists of the name of a parameter, the unexpanded value of that one (reference 1.1)."""
        text = self._raw.get(name, "")
        found = _ONE_NAME.fullmatch(text)
        named = found and (found[1] or found[2] or found[3])
        return self._raw[named] if named and named in self._raw else text

    def origin(self, *names: str) -> Parameter | None:
        """The first of these parameters that is set; None if all have Postfix's defaults."""
        for name in names:
            if name in self._options:
                return Parameter(name, self._options[name], self._where)
            if name in self._main:
                return Parameter(name, self._main[name], "main.cf")
        return None

    def set_names(self) -> list[str]:
        """Every parameter that main.cf or the service sets, in order."""
        return list({**self._main, **self._options})


class Postconf:
    """`postconf -c DIR`, which reads the configuration as Postfix does."""

    def __init__(self, program: str, folder: Path) -> None:
        self._command = [program, "-c", str(folder)]

    def values(self, options: Mapping[str, str]) -> dict[str, str]:
        """All parameters that this Postfix knows, expanded, with these `-o` options. Raises ReadError."""
        words = ["-x"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        found: dict[str, str] = {}
        for line in self._run(*words).splitlines():
            name, equals, value = line.partition("=")
            if equals:
                found[name.strip()] = value.strip()
        return found

    def _run(self, *words: str) -> str:
        try:
            done = subprocess.run(
                [*self._command, *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReadError(f"postconf: {escape_text(str(error), 500)}") from None
        if done.returncode:
            messages = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ReadError(escape_text(messages[-1] if messages else f"postconf: exit code {done.returncode}", 500))
        return done.stdout.decode("utf-8", "replace")


class Postfix(Struct, frozen=True):
    """One configuration folder. main: the parameters that main.cf sets. services: from master.cf. notes: problems while
    reading them. cache: settings that were read, by service, because each takes two runs of postconf.
    """

    folder: Path
    main: dict[str, str]
    services: list[Service]
    postconf: Postconf | None
    notes: list[str] = []
    cache: dict[str, Settings] = {}

    def settings(self, service: Service | None) -> Settings:
        """The settings of a service, without postconf if it rejects them, for example addresses of another machine."""
        name = service.full_name if service else ""
        if name not in self.cache:
            self.cache[name] = self._settings(service)
        return self.cache[name]

    def _settings(self, service: Service | None) -> Settings:
        folder = self.folder.absolute()
        if not self.notes:
            try:
                return Settings(self.main, service, self.postconf, folder)
            except ReadError as error:
                self.notes.append(f"{error}; the files were read without postconf")
        return Settings(self.main, service, None, folder)

    def postscreens(self) -> list[Service]:
        return [service for service in self.services if service.command == "postscreen"]

    def service(self, name: str, kind: str) -> Service | None:
        return next((service for service in self.services if (service.name, service.kind) == (name, kind)), None)


def read(folder: Path, postconf: str | None) -> Postfix:
    """Read main.cf and master.cf. postconf: the program, or None. Raises ReadError."""
    main_path, master_path = folder / "main.cf", folder / "master.cf"
    main = files.parameters(files.read(main_path), escape_text(str(main_path), 500))
    services = files.services(files.read(master_path), escape_text(str(master_path), 500))
    # master.cf is never read with postconf, which misreads options that are written as -oNAME=VALUE.
    program = Postconf(postconf, folder.absolute()) if postconf else None
    return Postfix(folder, main, services, program)
