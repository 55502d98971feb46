"""A client process that holds many connections and never sends: `python load.py HOST PORT COUNT`.

Each client has a different address in 127.20.0.0/14. When all have been greeted, it prints "held N". It ends when its
standard input does, and then prints "ended CLOSED": how many connections the server has closed.
"""

import resource
import select
import socket
import sys


def main(host: str, port: int, count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    held: dict[int, socket.socket] = {}
    greeted: set[int] = set()
    closed = 0
    announced = False
    while True:
        # No more are on their way than a listen queue has room for.
        while len(held) + closed < count and len(held) - len(greeted) < 200:
            number = len(held) + closed
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            client.setblocking(False)
            client.bind((f"127.{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 0))
            client.connect_ex((host, port))
            held[client.fileno()] = client
            poll.register(client.fileno(), select.EPOLLIN)
        if not announced and len(greeted) + closed >= count:
            announced = True
            print(f"held {len(held)}", flush=True)
        for descriptor, _ in poll.poll(1.0):
            if descriptor == sys.stdin.fileno():
                print(f"ended {closed}", flush=True)
                return
            try:
                data = held[descriptor].recv(4096)
            except OSError:
                data = b""
            if data:
                greeted.add(descriptor)
            else:
                poll.unregister(descriptor)
                held.pop(descriptor).close()
                greeted.discard(descriptor)
                closed += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
