"""Continue into a real Postfix, with every deep test enforced: one connection, and the message byte for byte."""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers import certificate, needs, postfix, processes, screener
from peers.namespace import Namespace
from peers.postfix import Postfix
from peers.screener import Screener

PORT = 2498
SETTINGS = {
    "greet": {"wait": "1s", "action": "enforce"},
    "deep": {"pipelining": "enforce", "non_smtp_command": "enforce", "bare_newline": "enforce"},
    "handoff": {"continue_to": f"proxy:{postfix.PROXIED}"},
}
TO = f"inbox@{postfix.MAIL_DOMAIN}"

# Sends a message as Python's smtplib does; prints the replies as JSON.
SMTPLIB = """
import json, smtplib, sys
server, port, source, sender, recipient, path, send_bdat = sys.argv[1:]
said = []
with smtplib.SMTP(server, int(port), "client.test", source_address=(source, 0)) as smtp:
    said.append(smtp.ehlo())
    said.append(smtp.mail(sender, ["SIZE=1000"]))
    said.append(smtp.rcpt(recipient))
    if said[-1][0] == 250:
        if int(send_bdat):
            content = open(path, "rb").read()
            smtp.send(b"BDAT %d LAST\\r\\n" % len(content) + content)
            said.append(smtp.getreply())
        else:
            said.append(smtp.data(open(path, "rb").read()))
print(json.dumps([[code, text.decode()] for code, text in said]))
"""


class Behind:
    """A screener with a real Postfix behind it, in a namespace of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
        self.namespace = Namespace(resolv_conf)
        try:
            self.postfix = Postfix(self.namespace, folder / "postfix", [], certificate.make(folder))
            try:
                self.screener = Screener(
                    self.namespace, folder / "screener", "continue", PORT, SETTINGS, self.postfix.ours[1], 1
                )
                self.screener.ready()
                # The MTA is asked at the start what it announces.
                processes.wait_until(lambda: "quit=1" in self.postfix.log.read_text(), "the question to the MTA")
            except BaseException:
                self.postfix.close()
                raise
        except BaseException:
            self.namespace.close()
            raise

    def close(self) -> None:
        self.screener.close()
        self.postfix.close()
        self.namespace.close()

    def inside(self, *command: str) -> str:
        inside = [*self.namespace.inside, *command]
        done = subprocess.run(inside, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode in (0, 24, 26), done.stdout[-2000:] + done.stderr  # swaks: MAIL, RCPT refused
        return done.stdout

    def lines(self, source: str) -> list[str]:
        """What the screener logged of a client, without ports."""
        words = f"[{source}]:"
        return [line.partition("]: ")[2] for line in self.screener.log.read_text().splitlines() if words in line]

    def received(self, token: str) -> bytes:
        """The message with this subject, once it is in the mailbox."""

        def found() -> list[bytes]:
            mails = [path.read_bytes() for path in self.postfix.mailbox.glob("new/*")]
            return [mail for mail in mails if f"\nSubject: {token}\n".encode() in mail[:4000]]

        processes.wait_until(lambda: bool(found()), f"the message {token!r} in the mailbox", 60)
        assert len(found()) == 1
        return found()[0]


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    needs.root("a private Postfix in a namespace")
    for name in ("postfix", "postfix-lmdb", "postfix-pcre", "ip", "unshare"):
        needs.program(name)
    folder = Path(tempfile.mkdtemp(prefix="fastscreen-continue-"))
    folder.chmod(0o755)
    try:
        peers = Behind(folder)
        try:
            yield peers
        finally:
            peers.close()
    finally:
        shutil.rmtree(folder)


def content(size: int) -> bytes:
    """A message's body: lines of all lengths up to 998, dots at their beginning and 8-bit octets among them."""
    chance = random.Random(size)
    body = bytearray(b"x\r\n" if size == 1 else b"")
    while len(body) < size:
        line = chance.randbytes(chance.randrange(990)).replace(b"\r", b"r").replace(b"\n", b"n").replace(b"\0", b"0")
        body += (b"." if chance.random() < 0.1 else b"") + line + b"\r\n"
    return bytes(body)


SIZES = {"1 B": 1, "1 MB": 1_000_000, "50 MB": 50_000_000}


@pytest.mark.parametrize("bdat", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("size", SIZES)
def test_smtplib_in_one_connection(behind: Behind, size: str, bdat: bool) -> None:
    source = f"127.10.{list(SIZES).index(size)}.{1 + bdat}"
    token = f"smtplib {size} {bdat}"
    body = content(SIZES[size])
    path = behind.folder / "message"
    path.write_bytes(f"Subject: {token}\r\n\r\n".encode() + body)
    arguments = [screener.address(1), str(PORT), source, "sender@client.test", TO, str(path), str(int(bdat))]
    said = json.loads(behind.inside(sys.executable, "-c", SMTPLIB, *arguments))
    assert [code for code, _ in said] == [250] * 4
    assert "CHUNKING" in said[0][1]
    assert f"SIZE {postfix.MOST}" in said[0][1]
    assert not {"STARTTLS", "PIPELINING"} & set(said[0][1].split())
    assert said[2][1] == "2.1.5 Ok"
    mail = behind.received(token)
    assert mail.partition(b"\n\n")[2] == body.replace(b"\r\n", b"\n")
    assert f"(unknown [{source}])".encode() in mail
    kinds = [line.split(" ")[0] for line in behind.lines(source)]
    assert kinds == ["CONNECT", "PASS", "CONTINUE"]


@pytest.mark.parametrize("size", SIZES)
def test_swaks_in_one_connection(behind: Behind, size: str) -> None:
    source = f"127.11.0.{1 + list(SIZES).index(size)}"
    token = f"swaks {size}"
    body = content(SIZES[size]).replace(b"\\", b"/")  # of which swaks makes something else
    path = behind.folder / "message"
    path.write_bytes(f"Subject: {token}\r\n\r\n".encode() + body)
    said = behind.inside(*swaks(source, "sender@client.test", TO), "--data", f"@{path}")
    assert "<-  250 2.1.5 Ok" in said
    mail = behind.received(token)
    assert mail.partition(b"\n\n")[2].rstrip(b"\n") == body.replace(b"\r\n", b"\n").rstrip(b"\n")
    assert [line.split(" ")[0] for line in behind.lines(source)] == ["CONNECT", "PASS", "CONTINUE"]


def swaks(source: str, sender: str, recipient: str) -> list[str]:
    return [
        needs.program("swaks"),
        *("--server", screener.address(1), "--port", str(PORT), "--local-interface", source),
        *("--helo", "client.test", "--from", sender, "--to", recipient, "--suppress-data"),
    ]


def test_refusals_are_in_the_mtas_own_words(behind: Behind) -> None:
    said = behind.inside(*swaks("127.12.0.1", "refused@client.test", TO))
    assert "<** 554 5.7.1 <refused@client.test>: Sender address rejected: not from you" in said
    said = behind.inside(*swaks("127.12.0.2", "sender@client.test", "nobody@elsewhere.test"))
    assert "<** 554 5.7.1 <nobody@elsewhere.test>: Relay access denied" in said
    for source in ("127.12.0.1", "127.12.0.2"):
        assert [line.split(" ")[0] for line in behind.lines(source)] == ["CONNECT", "PASS", "CONTINUE"]


def test_the_next_connection_is_handed_on_at_once(behind: Behind) -> None:
    """By descriptor, beside continue_to."""
    for _ in range(2):
        assert "<-  250 2.1.5 Ok" in behind.inside(*swaks("127.13.0.1", "sender@client.test", TO))
    assert [line.split(" ")[0] for line in behind.lines("127.13.0.1")] == [
        *("CONNECT", "PASS", "CONTINUE"),
        *("CONNECT", "PASS"),
    ]
    assert "PASS OLD" in behind.lines("127.13.0.1")[-1]


def test_check_tries_the_port(behind: Behind) -> None:
    file = behind.folder / "check.toml"
    target = f"proxy:{postfix.PROXIED}"
    file.write_text(f'[handoff]\nto = "{target}"\ncontinue_to = "{target}"\n[cache]\npath = ""\n')
    program = "import sys; from fastscreen.cli import main; sys.exit(main())"
    found = json.loads(behind.inside(sys.executable, "-c", program, "check", "--json", "-c", str(file)))
    said = {check["what"]: check for check in found["checks"]}
    for what in ("handoff.to", "handoff.continue_to"):
        assert said[what]["ok"], said[what]
        assert said[what]["detail"].startswith(f"{postfix.PROXIED}: announces 8BITMIME")
