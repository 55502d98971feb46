"""The commands on the control socket, against a daemon of the tests' own."""
