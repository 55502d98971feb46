"""The health of the DNS lists: they are probed as in RFC 5782, disabled while they fail, and then enabled again."""
