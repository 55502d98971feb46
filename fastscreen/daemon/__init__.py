"""The supervisor, its workers, and everything that happens to them: start, reload, restart, stop."""
