"""The control socket (docs/control.md): its server, a process that workers never wait for, and its clients."""
