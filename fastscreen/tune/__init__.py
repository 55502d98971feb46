"""Judges recorded sessions again under other settings (docs/tune.md)."""
