"""Resolvers, names of DNS lists, and the health of those lists."""
