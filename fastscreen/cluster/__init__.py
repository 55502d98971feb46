"""Passes that several hosts share through a Valkey or Redis server: a process that workers never wait for."""
