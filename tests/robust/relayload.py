"""A separate process with both ends of many relayed sessions: `python relayload.py COUNT`.

It prints "port N", the port of an MTA that reads PROXY headers, version 2. The MTA greets with the address in the
header, and repeats each line with "250 " before it. Then the process reads commands, one per line, and answers them:

    hold HOST PORT    connect COUNT clients, each from a different address in 127.20.0.0/14: "held N", how many were
                      greeted with their own address
    talk              each sends a unique line of some hundred bytes: "talked N", how many received it back
    end               each ends its side, and waits for the end of the other: "ended N"
"""

import contextlib
import resource
import select
import socket
import sys

HEADER = 28  # bytes, for IPv4
AT_A_TIME = 200  # connections that are being established: as many as fit into a listen queue
TIMEOUT = 60.0  # s


class Mta:
    """One session on the MTA's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.held = b""
        self.greeted = False

    def readable(self) -> bool:
        """False: it is over."""
        data = self.socket.recv(65536)
        if not data:
            return False
        self.held += data
        if not self.greeted and len(self.held) >= HEADER:
            self.greeted = True
            name = socket.inet_ntoa(self.held[16:20])
            self.socket.sendall(f"220 {name}\r\n".encode())
            self.held = self.held[HEADER:]
        while self.greeted and b"\n" in self.held:
            line, _, self.held = self.held.partition(b"\n")
            self.socket.sendall(b"250 " + line + b"\n")
        return True


class RelayedClients:
    """Both ends."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.poll = select.epoll()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.poll.register(self.listener.fileno(), select.EPOLLIN)
        self.sessions: dict[int, Mta] = {}
        self.clients: dict[int, tuple[socket.socket, str]] = {}
        self.said: dict[int, bytes] = {}
        """The bytes that each client has received so far."""

    def serve(self) -> None:
        """Everything that is ready."""
        for descriptor, _ in self.poll.poll(TIMEOUT, 1024) or sys.exit("nothing happens"):
            if descriptor == self.listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        connection, _ = self.listener.accept()
                        self.sessions[connection.fileno()] = Mta(connection)
                        self.poll.register(connection.fileno(), select.EPOLLIN)
            elif descriptor in self.sessions:
                if not self.sessions[descriptor].readable():
                    self.poll.unregister(descriptor)
                    self.sessions.pop(descriptor).socket.close()
            else:
                data = self.clients[descriptor][0].recv(65536)
                self.said[descriptor] += data
                if not data:
                    self.poll.unregister(descriptor)
                    self.clients.pop(descriptor)[0].close()

    def hold(self, host: str, port: int) -> int:
        greeted = 0
        while greeted < self.count:
            while len(self.clients) < min(self.count, greeted + AT_A_TIME):
                number = len(self.clients)
                client = socket.socket()
                name = f"127.20.{number >> 8}.{number & 255}"
                client.bind((name, 0))
                client.setblocking(False)
                client.connect_ex((host, port))
                self.clients[client.fileno()] = client, name
                self.said[client.fileno()] = b""
                self.poll.register(client.fileno(), select.EPOLLIN)
            self.serve()
            greeted = sum(said.endswith(b"\n") for said in self.said.values())
        return sum(self.said[at] == f"220 {name}\r\n".encode() for at, (_, name) in self.clients.items())

    def talk(self) -> int:
        wanted = {at: f"250 {name} {name * 30}\r\n".encode() for at, (_, name) in self.clients.items()}
        for at, (client, _) in self.clients.items():
            self.said[at] = b""
            client.sendall(wanted[at][4:])
        while any(len(self.said[at]) < len(line) for at, line in wanted.items()):
            self.serve()
        return sum(self.said[at] == line for at, line in wanted.items())

    def end(self) -> int:
        count = len(self.clients)
        for client, _ in self.clients.values():
            client.shutdown(socket.SHUT_WR)
        while self.clients or self.sessions:
            self.serve()
        return count


def main(count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = RelayedClients(count)
    print("port", clients.listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        match line.split():
            case ["hold", host, port]:
                print("held", clients.hold(host, int(port)), flush=True)
            case ["talk"]:
                print("talked", clients.talk(), flush=True)
            case ["end"]:
                print("ended", clients.end(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
