"""Continue and `proxy:` into real MTAs, with the lines of their pages in docs/ and every deep test enforced.

All deliveries to an MTA run at the same time, each from a different address. Each test waits for one.
"""

import contextlib
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from peers import certificate, exim, needs, opensmtpd, pages, postfix, processes, profiles, screener
from peers.exim import Exim
from peers.namespace import Namespace
from peers.opensmtpd import OpenSmtpd
from peers.postfix import Postfix
from peers.screener import Screener

Mta = Postfix | Exim | OpenSmtpd

PORT = 2498  # of the screener with continue_to
EARLY_PORT = 2499  # of the one with early tests and `proxy:`
TO = f"inbox@{postfix.MAIL_DOMAIN}"
GREET = {"wait": "1s", "action": "enforce"}

SIZES = {"1 B": 1, "1 MB": 1_000_000, "50 MB": 50_000_000}
CLIENTS = ("smtplib", "smtplib BDAT", "swaks", "curl")
PAGES = {"postfix": postfix.PAGE, "exim": exim.PAGE, "opensmtpd": opensmtpd.PAGE}
REFUSALS = list(itertools.product(("smtplib", "swaks", "curl"), (False, True), ("sender", "recipient")))
CONTINUED = ["CONNECT from", "PASS NEW", "CONTINUE from"]
AT_A_TIME = 4  # deliveries; each needs half a processor

# Sends a message as Python's smtplib does; prints the replies as JSON.
SMTPLIB = """
import json, smtplib, ssl, sys
server, port, source, sender, recipient, path, tls, bdat = sys.argv[1:]
said = []
with smtplib.SMTP(server, int(port), "client.test", source_address=(source, 0)) as smtp:
    if int(tls):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        smtp.starttls(context=context)
    said.append(smtp.ehlo())
    said.append(smtp.mail(sender, ["SIZE=1000", "BODY=8BITMIME"]))
    said.append(smtp.rcpt(recipient))
    if said[-1][0] == 250:
        content = open(path, "rb").read()
        if int(bdat):
            smtp.send(b"BDAT %d LAST\\r\\n" % len(content) + content)
            said.append(smtp.getreply())
        else:
            said.append(smtp.data(content))
print(json.dumps([[code, text.decode()] for code, text in said]))
"""


@dataclass(frozen=True)
class Delivery:
    """One message on its way."""

    client: str
    tls: bool
    size: str

    @property
    def token(self) -> str:
        """Its subject."""
        return f"{self.client} {'TLS' if self.tls else 'plain'} {self.size}"

    @property
    def source(self) -> str:
        """The client's address."""
        return f"127.{10 + self.tls}.{CLIENTS.index(self.client)}.{1 + list(SIZES).index(self.size)}"


@cache
def content(size: int) -> bytes:
    """The body of a message: lines of all lengths up to 990, some with leading dots or 8-bit characters."""
    if size > 1_000_000:
        return b"".join(b"%d\r\n" % part + content(1_000_000) for part in range(size // 1_000_000))
    chance = random.Random(size)
    removed = bytes.maketrans(b"\r\n\0\\", b"rn0/")  # swaks makes something else of a backslash
    body = bytearray(b"x\r\n" if size == 1 else b"")
    while len(body) < size:
        line = chance.randbytes(chance.randrange(990)).translate(removed)
        body += (b"." if chance.random() < 0.1 else b"") + line + b"\r\n"
    return bytes(body)


def make_mta(kind: str, namespace: Namespace, folder: Path, chain: tuple[Path, Path]) -> Mta:
    if kind == "postfix":
        return Postfix(namespace, folder / kind, [], chain)
    return Exim(namespace, folder / kind) if kind == "exim" else OpenSmtpd(namespace, folder / kind)


def cases(kind: str) -> list[Delivery]:
    """Every client, with and without TLS, at every size."""
    clients = [client for client in CLIENTS if kind != "opensmtpd" or client != "smtplib BDAT"]  # without CHUNKING
    return [Delivery(client, tls, size) for size in SIZES for client in clients for tls in (False, True)]


class Behind:
    """Two fastscreen daemons with a real MTA, in a separate namespace."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._stack = contextlib.ExitStack()
        try:
            resolv_conf = folder / "resolv.conf"
            resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
            self.namespace = Namespace(resolv_conf)
            self._stack.callback(self.namespace.close)
            self.chain = certificate.make(folder)
            self.mta = make_mta(kind, self.namespace, folder, self.chain)
            self._stack.callback(self.mta.close)
            tls = {"level": "may", "certificates": [str(path) for path in self.chain]}
            self.screener = self._screener("continue", PORT, {**pages.settings(PAGES[kind]), "tls": tls})
            self.early = self._screener("early", EARLY_PORT, {"handoff": {"to": f"proxy:{postfix.PROXIED}"}})
            self.screener.ready()
            self.early.ready()
            # The MTA is asked for its keywords at the start; until then CHUNKING is not announced to clients.
            processes.wait_until(lambda: self.mta.asked in self.mta.log.read_text(), "the question to the MTA")
            self._pool = ThreadPoolExecutor(AT_A_TIME)
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
        except BaseException:
            self.close()
            raise
        self.refusals = {case: self._pool.submit(self._refused, *case) for case in REFUSALS}
        self.deliveries = {delivery: self._pool.submit(self._deliver, delivery) for delivery in cases(kind)}

    def _screener(self, name: str, port: int, settings: profiles.Settings) -> Screener:
        handoff = dict(settings["handoff"])
        socket = Path("/nowhere")
        if handoff["to"].startswith("pass:"):  # the screener's own way to name the private instance's socket
            del handoff["to"]
            assert isinstance(self.mta, Postfix)
            socket = self.mta.ours[1]
        settings = profiles.merge({**settings, "handoff": handoff}, {"greet": GREET})
        made = Screener(self.namespace, self.folder / f"screener-{name}", name, port, settings, socket, 1)
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()

    def _deliver(self, delivery: Delivery) -> None:
        """Send it, wait until it is in the mailbox, compare."""
        body = content(SIZES[delivery.size])
        path = self.folder / delivery.token.replace(" ", "-")
        path.write_bytes(f"Subject: {delivery.token}\r\n\r\n".encode() + body)
        {"swaks": self._swaks, "curl": self._curl}.get(delivery.client, self._smtplib)(delivery, path)
        path.unlink()
        mail = self.received(delivery.token)
        head, _, got = mail.partition(b"\n\n")
        sent = body.replace(b"\r\n", b"\n")
        if delivery.client == "swaks":  # which adds an empty line at the end of a message
            got, sent = got.rstrip(b"\n"), sent.rstrip(b"\n")
        assert len(got) == len(sent)
        assert got == sent, "the message was changed"
        assert f"[{delivery.source}]".encode() in head

    def inside(self, *command: str) -> tuple[int, str]:
        """Run a client; return its exit status and all that it printed."""
        inside = [*self.namespace.inside, *command]
        done = subprocess.run(inside, capture_output=True, text=True, errors="replace", timeout=120)
        return done.returncode, done.stdout + done.stderr

    def _refused(self, client: str, tls: bool, what: str) -> None:
        """Be refused, and see what the client was shown."""
        number = REFUSALS.index((client, tls, what))
        source = f"127.12.0.{1 + number}"
        sender, to = (
            ("refused@client.test", TO) if what == "sender" else ("sender@client.test", "nobody@elsewhere.test")
        )
        words = self.mta.sender_refused if what == "sender" else self.mta.recipient_refused
        path = self.folder / f"refused-{number}"
        path.write_bytes(b"Subject: refused\r\n\r\nx\r\n")
        if client == "smtplib":
            code, printed = self.inside(*smtplib_command(source, sender, to, path, tls))
            assert code == 0, printed
            printed = f"{json.loads(printed)[-1][0]} {json.loads(printed)[-1][1]}"
        elif client == "swaks":
            code, printed = self.inside(*swaks_command(source, sender, to, tls))
            assert code == 24, printed  # no recipient was taken: the answer to MAIL is the answer to RCPT
        else:
            code, printed = self.inside(*curl_command(source, sender, to, path, tls))
            assert code == 55, printed  # not sent
        assert words in printed
        lines = self.lines(source)
        assert lines[: len(CONTINUED)] == CONTINUED
        left = lines[len(CONTINUED) :]  # a session whose MAIL was refused is the screener's to end
        assert all(what == "sender" and line.startswith(("DISCONNECT ", "HANGUP ")) for line in left), left

    def _smtplib(self, delivery: Delivery, path: Path) -> None:
        bdat = delivery.client.endswith("BDAT")
        code, printed = self.inside(
            *smtplib_command(delivery.source, "sender@client.test", TO, path, delivery.tls, bdat)
        )
        assert code == 0, printed
        said = json.loads(printed)
        assert [code for code, _ in said] == [250] * 4, said
        words = said[0][1].split()
        assert ("CHUNKING" in words) == self.mta.chunking
        assert f"SIZE {postfix.MOST}" in said[0][1]
        assert not {"STARTTLS", "PIPELINING"} & set(words) - ({"STARTTLS"} if not delivery.tls else set())
        assert f"{said[2][0]} {said[2][1]}" == self.mta.taken

    def _swaks(self, delivery: Delivery, path: Path) -> None:
        command = swaks_command(delivery.source, "sender@client.test", TO, delivery.tls)
        code, printed = self.inside(*command, "--suppress-data", "--data", f"@{path}")
        assert code == 0, printed[-2000:]
        assert self.mta.taken in printed

    def _curl(self, delivery: Delivery, path: Path) -> None:
        code, printed = self.inside(*curl_command(delivery.source, "sender@client.test", TO, path, delivery.tls))
        assert code == 0, printed[-2000:]
        assert f"< {self.mta.taken}" in printed

    def received(self, token: str) -> bytes:
        """Take the message with this subject out of the mailbox, once it is there."""

        def found() -> list[Path]:
            return [path for path in self.mta.mailbox.glob("new/*") if _subject(path) == token]

        processes.wait_until(lambda: bool(found()), f"the message {token!r} in the mailbox", 60)
        (path,) = found()
        mail = path.read_bytes()
        path.unlink()
        return mail

    def lines(self, source: str, of: Screener | None = None) -> list[str]:
        """What postscreen's part of a screener logged of a client, without ports: the first two words of each line."""
        lines = (of or self.screener).log.read_text().splitlines()
        texts = [line.partition("]: ")[2] for line in lines if f"[{source}]:" in line and "/postscreen[" in line]
        return [" ".join(text.split(" ")[:2]) for text in texts]


def _subject(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4000).partition(b"\n\n")[0]
    except FileNotFoundError:  # another test's, which has taken it
        return ""
    return next((line[9:].decode() for line in head.split(b"\n") if line.startswith(b"Subject: ")), "")


def smtplib_command(source: str, sender: str, to: str, path: Path, tls: bool = False, bdat: bool = False) -> list[str]:
    arguments = [screener.address(1), str(PORT), source, sender, to, str(path), str(int(tls)), str(int(bdat))]
    return [sys.executable, "-c", SMTPLIB, *arguments]


def swaks_command(source: str, sender: str, to: str, tls: bool = False, port: int = PORT) -> list[str]:
    return [
        needs.program("swaks"),
        *("--server", screener.address(1), "--port", str(port), "--local-interface", source),
        *("--helo", "client.test", "--from", sender, "--to", to),
        *(["-tls"] if tls else []),
    ]


def curl_command(source: str, sender: str, to: str, path: Path, tls: bool = False) -> list[str]:
    return [
        needs.program("curl"),
        *("--silent", "--show-error", "--verbose", "--interface", source),
        *("--mail-from", sender, "--mail-rcpt", to, "--upload-file", str(path)),
        *(["--ssl-reqd", "--insecure"] if tls else []),
        f"smtp://{screener.address(1)}:{PORT}/client.test",
    ]


@pytest.fixture(scope="module", params=PAGES)
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    kind: str = request.param
    needs.root("a private MTA in a namespace")
    for name in ("postfix", "postfix-lmdb", "postfix-pcre", "openssl", "swaks", "curl", "ip", "unshare"):
        needs.program(name)
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-continue-"))
    try:
        folder.chmod(0o755)
        peers = Behind(kind, folder)
        try:
            yield peers
        finally:
            peers.close()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "STARTTLS"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_message_in_one_connection(behind: Behind, client: str, tls: bool, size: str) -> None:
    """As it was sent, in the mailbox; the log has one connection, which passed and went on."""
    delivery = Delivery(client, tls, size)
    if delivery not in behind.deliveries:
        assert not behind.mta.chunking  # then BDAT is not used, as the EHLO replies to other clients showed
        return
    behind.deliveries[delivery].result(180)
    assert behind.lines(delivery.source) == CONTINUED
    assert behind.mta.logged(delivery.source)


@pytest.mark.parametrize(("client", "tls", "what"), REFUSALS)
def test_a_refusal_is_in_the_mtas_own_words(behind: Behind, client: str, tls: bool, what: str) -> None:
    behind.refusals[client, tls, what].result(180)


def test_the_next_connection_is_handed_on_at_once(behind: Behind) -> None:
    """To `to`: Postfix by descriptor, the others by `proxy:`."""
    for number in (1, 2):
        code, printed = behind.inside(
            *swaks_command("127.13.0.1", "sender@client.test", TO), "--header", f"Subject: next {number}"
        )
        assert code == 0, printed
        assert behind.mta.taken in printed
        behind.received(f"next {number}")
    assert behind.lines("127.13.0.1") == [*CONTINUED, "CONNECT from", "PASS OLD"]


def test_a_client_is_connected_through(behind: Behind) -> None:
    """`to = "proxy:…"` after early tests: the MTA delivers, and its log and the message have the client's address."""
    for number, verdict in enumerate(("PASS NEW", "PASS OLD"), 1):
        source, token = "127.14.0.1", f"through {number}"
        command = swaks_command(source, "sender@client.test", TO, port=EARLY_PORT)
        code, printed = behind.inside(*command, "--header", f"Subject: {token}")
        assert code == 0, printed
        assert f"[{source}]".encode() in behind.received(token).partition(b"\n\n")[0]
        assert behind.lines(source, behind.early)[-2:] == ["CONNECT from", verdict]
    assert len(behind.lines(source, behind.early)) == 4
    assert behind.mta.logged(source)


def test_pflogsumm_counts_the_ports_mail(behind: Behind, tmp_path: Path) -> None:
    """Under the name that the port has in the page."""
    if behind.kind != "postfix":
        return
    for number in range(2):
        code, printed = behind.inside(
            *swaks_command(f"127.20.0.{1 + number}", "sender@client.test", TO), "--header", f"Subject: counted {number}"
        )
        assert code == 0, printed
        behind.received(f"counted {number}")
    log = tmp_path / "mail.log"
    log.write_text(
        "".join(
            line + "\n"
            for line in behind.mta.log.read_text().splitlines()
            if any(f"[127.20.0.{1 + number}]" in line for number in range(2)) and "client=" in line
        )
    )
    assert len(log.read_text().splitlines()) == 2
    done = subprocess.run([needs.program("pflogsumm"), str(log)], capture_output=True, text=True, timeout=120)
    assert "      2   received\n" in done.stdout, done.stdout + log.read_text()


def test_openssl_and_swaks_agree(behind: Behind) -> None:
    """About protocol, cipher, certificate and what EHLO says inside TLS."""
    kept = behind.folder / "swaks.pem"
    code, swaks = behind.inside(
        *swaks_command("127.15.0.1", "sender@client.test", TO, tls=True),
        *("--quit-after", "EHLO", "--tls-get-peer-cert", str(kept)),
    )
    assert code == 0, swaks
    command = [needs.program("openssl"), "s_client", "-starttls", "smtp", "-crlf", "-ign_eof", "-nocommands"]
    command += ["-name", "client.test", "-bind", "127.15.0.2:0", "-connect", f"{screener.address(1)}:{PORT}"]
    with subprocess.Popen(
        [*behind.namespace.inside, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("EHLO client.test\n")
        process.stdin.flush()
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip("\r\n"))
            if line.startswith("250 ") and any(each.startswith("250-mx") for each in printed):
                break
        process.stdin.write("QUIT\n")
        process.stdin.close()
        printed += [line.rstrip("\r\n") for line in process.stdout]
    openssl = "\n".join(printed)
    protocol, cipher = swaks.partition("TLS started with cipher ")[2].split(":")[:2]
    assert protocol == "TLSv1.3"
    assert f"New, {protocol}, Cipher is {cipher}" in openssl
    assert _certificate(kept.read_text()) == _certificate(openssl) == _certificate(behind.chain[1].read_text())
    inside = [line.strip().removeprefix("<~").strip() for line in swaks.splitlines() if line.startswith("<~")]
    replied = [line for line in inside if line.startswith("250")]
    assert replied[0].startswith(f"250-{postfix.HOSTNAME}")
    assert "250-STARTTLS" not in replied
    first = next(at for at, line in enumerate(printed) if line.startswith("250-"))  # of the reply inside TLS
    assert [line for line in printed[first:] if line.startswith("250")] == replied


def _certificate(text: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return "".join(text.partition(begin)[2].partition(end)[0].split())


def test_others_are_offered_starttls_by_exim(behind: Behind) -> None:
    """Its page turns STARTTLS off for what comes behind a header, and for nobody else."""
    if behind.kind != "exim":
        return
    command = [needs.program("swaks"), "--server", "127.0.0.1", "--port", "10025", "--local-interface", "127.16.0.1"]
    code, printed = behind.inside(*command, "--helo", "client.test", "--to", TO, "--quit-after", "EHLO")
    assert code == 0, printed
    assert "<-  250-STARTTLS" in printed


@pytest.mark.parametrize("version", [1, 2])
def test_check_tries_the_port(behind: Behind, version: int) -> None:
    """With either version of the header; OpenSMTPD reads the second only, and says nothing to the first."""
    file = behind.folder / f"check{version}.toml"
    target = f"proxy:{postfix.PROXIED}"
    file.write_text(
        f'[handoff]\nto = "{target}"\ncontinue_to = "{target}"\nproxy_version = {version}\n[cache]\npath = ""\n'
    )
    program = "import sys; from fastscreen.cli import main; sys.exit(main())"
    code, printed = behind.inside(sys.executable, "-c", program, "check", "--json", "-c", str(file))
    assert code in (0, 1), printed  # 1: the log daemon that this machine may not have
    said = {check["what"]: check for check in json.loads(printed)["checks"]}
    for what in ("handoff.to", "handoff.continue_to"):
        assert said[what]["ok"] == (behind.kind != "opensmtpd" or version == 2), said[what]
        answer = "announces 8BITMIME" if said[what]["ok"] else ""
        assert said[what]["detail"].startswith(f"{postfix.PROXIED}: {answer}")
