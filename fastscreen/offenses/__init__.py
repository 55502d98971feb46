"""The memory of offenses: what addresses, networks and autonomous systems did in the past weeks, good and bad.

The recorder's process writes it, from the sessions that have ended; workers read it for clients that they test. The
records and the rules are in ext/offense_record.pyx, the scorers in ext/score_seen.pyx.
"""
