"""The output of import-postfix starts for any Postfix configuration; omitted values are in the to-do list."""

import socket
from pathlib import Path

from hypothesis import given
from postfixfiles import Files, files, folder_with

from fastscreen import config
from fastscreen.cli import import_postfix
from fastscreen.config.model import Endpoint, LogFile, LogSyslog
from fastscreen.escaping import escape_text
from fastscreen.postfix import settings as postfix_settings
from fastscreen.postfix.files import ReadError
from fastscreen.postfix.output import shown
from fastscreen.process.privileges import user_of
from fastscreen.screening import policy
from fastscreen.screening.macros import MacroError, words
from fastscreen.tls import certificates
from fastscreen.tls.context import chains, new_context

EVERYWHERE = ("0.0.0.0", "::")


def starts(settings: config.Config) -> None:
    """What `fastscreen run` does with a configuration before it takes clients, except that it binds no port."""
    user_of(settings)
    if settings.tls.certificates:
        files = certificates.read(settings.tls.certificates)
        new_context(settings.tls, chains(files.contents()))
        files.close()
    policy.Tables(settings).policy("/nowhere", lambda text: None)
    ports = settings.listen.ports
    assert not [each for each in ports if Endpoint(EVERYWHERE[":" in each.host], each.port) in ports.keys() - {each}]
    for address in ports:
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
            probe.bind((address.host, 0))
    to = settings.log.to
    if isinstance(to, LogFile):
        assert Path(to.path).parent.is_dir()
        assert not Path(to.path).is_dir()
    assert not isinstance(to, LogSyslog) or Path("/dev/log").is_socket()


# Of these the default is what Postfix's value means, or they are told elsewhere.
_MAY_BE_SILENT = ("engine.announce_vrfy", "cache.path", "user", "tls.protocols", "tls.ciphers", "hostname", "banner")


def omissions_are_told(made: import_postfix.Result) -> None:
    for entry in made.translated.entries:
        todo = " ".join(note.text for note in entry.notes if note.todo)
        if entry.sources and entry.value is None and entry.key.key not in _MAY_BE_SILENT:
            assert todo or entry.key.default == "[]", (entry.key.key, entry.sources)
        if entry.key.key not in ("dnsbl.sites", "access.mynetworks", "engine.forbidden_commands"):
            continue
        for source in entry.sources[:1]:
            try:
                items = words(source.text)
            except MacroError:
                continue
            for item in items:
                # each is in the value, or named in what is to do, if not for a name in it that became something else
                name = item.lstrip("!").partition(":")[2] or item
                if "$" not in source.text and item.strip("!"):
                    said = f"{entry.value} {todo}"
                    assert escape_text(name, 80) in said or name in said or "static:" in item, (item, entry)


@given(files())
def test_what_is_written_starts_and_what_is_omitted_is_told(made: Files) -> None:
    with folder_with(made) as folder:
        try:
            postfix = postfix_settings.read(folder, None)
            done = import_postfix.imported(postfix, None)
        except ReadError:
            return  # of what Postfix refuses to start with, too: see tests/peers/test_import_starts.py
        assert not isinstance(done, str)
        path = folder / "fastscreen.toml"
        path.write_text(done.text)
        starts(config.load(path))
        omissions_are_told(done)
        for source, _ in done.translated.no_counterpart:
            assert shown(source).split(" = ")[0] in done.text
        assert all(line.isprintable() for line in done.text.splitlines())
        assert all(line.isprintable() for line in import_postfix.summary(done, path))
