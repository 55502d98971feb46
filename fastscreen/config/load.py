"""From a TOML file, or from nothing, to a `Config`."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from difflib import get_close_matches
from pathlib import Path

import msgspec

from fastscreen.config.escape import escaped, quoted
from fastscreen.config.model import Config, Endpoint, ProxyPort
from fastscreen.config.names import KEYS, TABLES, Key
from fastscreen.config.values import BANNER_MOST, Address, Hostname

_NAME = re.compile(r"\$(?:\{([a-z_]+)\}|([a-z_]+)|(\$)|())")
_BUILT_IN = {
    "listen.addresses": ["127.0.0.1:2525"],
    "handoff.to": "sink:",
    "greet.action": "enforce",
    "deep.pipelining": "enforce",
    "deep.non_smtp_command": "enforce",
    "deep.bare_newline": "enforce",
}


class ConfigError(Exception):
    """A mistake in the configuration; its text is one printable line.

    `FILE: table.key: what is wrong; what is allowed`, or `FILE: line N: ...` where the file is not TOML.
    """


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigError; tables and files that it names are not opened."""
    source = escaped(str(path), 4096)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}; a TOML file is expected") from None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}: line {line}: not UTF-8; a TOML file is expected") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).rpartition(" (")
        line_of = re.match(r"at line ([0-9]+)", place)
        line = int(line_of[1]) if line_of else text.count("\n") + 1
        raise ConfigError(f"{source}: line {line}: {escaped(what)}; a TOML file is expected") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; a TOML file is expected") from None
    return _build(raw, source)


def default() -> Config:
    """The built-in settings of `fastscreen run` without a file: try it out on loopback, as any user."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = {
        "cache.path": str(folder / "fastscreen/cache"),
        "control.path": str((Path(runtime) if runtime.startswith("/") else folder) / "fastscreen/control"),
    }
    raw: dict[str, object] = {}
    for key, value in {**_BUILT_IN, **own}.items():
        table, _, name = key.rpartition(".")
        section = raw.setdefault(table, {})
        assert isinstance(section, dict)
        section[name] = value
    return _build(raw, "built-in settings")


def _build(raw: dict[str, object], source: str) -> Config:
    given = _flatten(raw, source)
    parsed: dict[str, object] = {}
    for key in KEYS:
        try:
            parsed[key.key] = key.kind.parse(given[key.key] if key.key in given else default_value(key))
        except ValueError as error:
            raise ConfigError(f"{source}: {key.key}: {error}") from None
    _complete(parsed, given, source)
    tree: dict[str, object] = {"source": source}
    for key in KEYS:
        section = tree.setdefault(key.table, {}) if key.table else tree
        assert isinstance(section, dict)
        section[key.name] = parsed[key.key]
    return msgspec.convert(tree, Config)


def default_value(key: Key) -> object:
    """The default as tomllib gives it."""
    return tomllib.loads(f"value = {key.default}")["value"]


def _flatten(raw: dict[str, object], source: str) -> dict[str, object]:
    """`{"greet": {"wait": 6}}` to `{"greet.wait": 6}`; an unknown name is an error."""
    known = {key.key for key in KEYS}
    given: dict[str, object] = {}
    for name, value in raw.items():
        if name in known:
            given[name] = value
        elif name not in TABLES or name == "":
            raise ConfigError(
                f"{source}: {_unknown(name, [*TABLES, *(key.key for key in KEYS if not key.table)], known)}"
            )
        elif not isinstance(value, dict):
            raise ConfigError(f"{source}: {name}: not a table; allowed: [{name}] and its keys in the lines below")
        else:
            for inner, item in value.items():
                if f"{name}.{inner}" not in known:
                    names = [key.name for key in KEYS if key.table == name]
                    raise ConfigError(f"{source}: {name}.{_unknown(inner, names, known)}")
                given[f"{name}.{inner}"] = item
    return given


def _unknown(name: str, allowed: list[str], known: set[str]) -> str:
    """What to say of a name that is not in `allowed`: one like it, or the table where it belongs."""
    near = get_close_matches(name, allowed, 1)
    elsewhere = sorted(key for key in known if key.rpartition(".")[2] == name)
    if near:
        hint = f', did you mean "{near[0]}"?'
    elif elsewhere:
        hint = f', did you mean "{elsewhere[0]}"?'
    else:
        hint = ""
    return f"{escaped(name) or quoted(name)}: unknown name{hint}; allowed: {', '.join(filter(None, allowed))}"


def machine_name() -> str:
    """The machine's full name where the resolver knows one, else its own name; "localhost" only if it has no other."""
    full = socket.getfqdn()
    return full if "." in full and not full.startswith("localhost") else socket.gethostname()


def _complete(parsed: dict[str, object], given: dict[str, object], source: str) -> None:
    """Put in what depends on the machine or on other keys."""
    if not parsed["hostname"]:
        name = machine_name()
        try:
            parsed["hostname"] = Hostname().parse(name)
        except ValueError as error:
            raise ConfigError(f"{source}: hostname: left out, and the machine's name will not do: {error}") from None
    _check_addresses(parsed, source)
    hostname = parsed["hostname"]
    banner = parsed["banner"] = _expand("banner", str(parsed["banner"]), {"hostname": str(hostname)}, source)
    names = {"hostname": str(hostname), "banner": banner}
    parsed["greet.banner"] = _expand("greet.banner", str(parsed["greet.banner"]), names, source)
    if parsed["tls.level"] != "none" and not parsed["tls.certificates"]:
        raise ConfigError(f"{source}: tls.certificates: none, but tls.level is on; allowed: at least one file")
    if parsed["denylist.path"] and parsed["denylist.path"] == parsed["allowlist.path"]:
        raise ConfigError(f"{source}: denylist.path: the same as allowlist.path; allowed: a file of its own")
    if "engine.announce_vrfy" not in given:
        parsed["engine.announce_vrfy"] = not parsed["engine.disable_vrfy_command"]


def _check_addresses(parsed: dict[str, object], source: str) -> None:
    """There is at least one address to listen on, and none is both a PROXY port and something else."""
    plain: tuple[Endpoint, ...] = msgspec.convert(parsed["listen.addresses"], tuple[Endpoint, ...])
    ports: tuple[ProxyPort, ...] = msgspec.convert(parsed["listen.proxy"], tuple[ProxyPort, ...])
    if not plain and not ports:
        allowed = f"a list of: {Address().allowed}, or none where listen.proxy has one"
        raise ConfigError(f"{source}: listen.addresses: an empty list; allowed: {allowed}")
    everyone = [*plain, *(address for port in ports for address in port.addresses)]
    if len(everyone) > 100:
        raise ConfigError(f"{source}: listen: {len(everyone)} addresses; allowed: at most 100")
    for place, address in enumerate(everyone):
        if address in everyone[:place] and place >= len(plain):
            raise ConfigError(f"{source}: listen.proxy: {address} is there twice; allowed: each address once")


def _expand(key: str, text: str, names: dict[str, str], source: str) -> str:
    """Replace `$name`, `${name}` and `$$`."""

    def one(found: re.Match[str]) -> str:
        name = found[1] or found[2] or ""
        if found[3]:
            return "$"
        if name not in names:
            allowed = ", ".join(f"${known}" for known in names)
            raise ConfigError(f"{source}: {key}: unknown name {quoted(found[0])}; allowed: {allowed}, $$ for a $")
        return names[name]

    expanded = _NAME.sub(one, text)
    if len(expanded) > BANNER_MOST:
        raise ConfigError(f"{source}: {key}: {len(expanded)} characters; allowed: at most {BANNER_MOST}")
    return expanded
