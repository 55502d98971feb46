"""A screener that Python takes apart while it holds clients: each is freed once, with what it belongs to."""

import subprocess
import sys

PROGRAM = """
import gc, socket, sys, time
from pathlib import Path
from fastscreen import config
from fastscreen.screening import policy
from fastscreen.core import Log, Screener

Path(sys.argv[1]).write_text(
    'handoff = {to = "pass:/nonexistent/mta"}\\nuser = ""\\nlisten = {addresses = ["127.0.0.1:0"]}\\n'
    'dnsbl = {sites = ["a.test"], resolvers = ["127.9.53.9:9"]}\\nengine = {reject_footer = "x"}\\n'
)

settings = config.load(Path(sys.argv[1]))
built = policy.build(settings, "/nonexistent/mta", print)

def in_a_cycle():
    # The collector finds the dict behind the screener, so that it clears the screener first.
    owner = {}
    screener = Screener(
        built.policy, Log("x", host="h", pid=1), None, on_truncated=owner.get, on_drained=owner.clear
    )
    screener.use_resolvers([b"\\x02\\x00\\x00\\x09\\x7f\\x09\\x35\\x09" + bytes(8)])
    owner["screener"] = screener
    return screener

gc.disable()
for turn in range(20):
    screener = in_a_cycle()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    screener.listen(listener.fileno())
    clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
    while screener.sessions < 5:
        screener.run()
    del screener
    gc.collect()
    for client in clients:
        assert client.recv(1000).startswith(b"220-"), "teaser"
        client.close()
    listener.close()
print("ended")
"""


def test_screener_with_sessions_is_collected(tmp_path: object) -> None:
    """Its callbacks make it part of a cycle, as in the server: the collector clears it before it is deallocated."""
    command = [sys.executable, "-c", PROGRAM, f"{tmp_path}/c.toml"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "ended\n"), ran.stderr
