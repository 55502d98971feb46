"""What the `fastscreen` program calls first. Ctrl-C ends it silently at any time, also while it is being imported.

Until a command runs, and after it has run, SIGINT has its default action, which needs no Python; a shell shows that as
exit code 130. A command that was interrupted tidies up and ends with 130 itself. An ignored SIGINT stays ignored.
"""

import signal

_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interruptible:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command line; return the exit code."""
    from fastscreen.cli import main as run

    try:
        return run(interruptible=_interruptible)
    finally:
        if _interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
