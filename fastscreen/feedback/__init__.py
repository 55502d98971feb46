"""What became of clients that were handed off: the log of the MTA says so, and the memory of offenses learns it.

Only a session that fastscreen itself handed off a moment ago can get an outcome, and each gets one at most. A line of
the log is material to judge, whoever wrote it: docs/score.md, "Feedback from the MTA's log".
"""
