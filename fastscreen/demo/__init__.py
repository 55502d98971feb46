"""fastscreen demo: runs fastscreen on loopback with simulated clients, DNS lists and the live view."""
