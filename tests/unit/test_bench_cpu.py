"""The benchmark's CPU count, on real processes that use a known amount of it."""

import subprocess
import sys

from bench import cpu

# Uses 0.3 s of CPU in a child that ends, 0.2 s in a thread that ends and in itself, whatever else the machine does.
PARENT = """
import subprocess, sys, threading, time
BURN = "import time\\nwhile time.process_time() < 0.3: pass"
def burn():
    until = time.thread_time() + 0.1
    while time.thread_time() < until: pass
print("ready", flush=True)
input()
subprocess.run([sys.executable, "-c", BURN], check=True)
thread = threading.Thread(target=burn)
thread.start()
thread.join()
burn()
print("done", flush=True)
input()
"""


def test_children_and_threads_that_ended_are_counted() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = cpu.read(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        used = cpu.used(before, cpu.read(process.pid))
        process.stdin.write("\n")
    ended = used.pop(cpu.ENDED)
    assert ended >= 0.28  # two ticks of 10 ms may be rounded away
    assert sum(used.values()) >= 0.2


def test_what_a_child_had_used_before_is_not_counted_again() -> None:
    """A child that ends between the readings is in its parent's sum as a whole."""
    reading = cpu.Reading
    before = reading(used={(1, 1): ("master", 50), (2, 7): ("dnsblog", 300)}, children={(1, 1): 1000, (2, 7): 0})
    after = reading(used={(1, 1): ("master", 70), (2, 9): ("dnsblog", 40)}, children={(1, 1): 1400, (2, 9): 0})
    used = cpu.used(before, after)
    assert {name: round(seconds * 1e9) for name, seconds in used.items()} == {
        "master": 20,
        "dnsblog": 40,  # another process with the same pid
        cpu.ENDED: 100,
    }
