"""The entry point of `fastscreen` and of `python -m fastscreen`. Ctrl-C ends it silently, even while it is imported.

Until a command runs, and after it has run, SIGINT has its default action, which needs no Python; a shell shows that as
exit code 130. A command that was interrupted tidies up and ends with 130 itself. An ignored SIGINT stays ignored.
"""

import signal
import sys

_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interruptible:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

AGAIN_SECONDS = 0.02


def main() -> int:
    """Run the command line; return the exit code."""
    from fastscreen.cli import main as run

    if not _interruptible:
        return run()
    sys.unraisablehook = _interrupt_again
    try:
        return run(interruptible=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.unraisablehook = sys.__unraisablehook__


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C came where Python can raise nothing (a finalizer, a hook of fork): raise it a moment later."""
    if lost.exc_type is KeyboardInterrupt:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    sys.exit(main())
