"""The hub: the process that serves the control socket (docs/control.md), beside the workers and never in their way."""
