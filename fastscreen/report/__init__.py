"""fastscreen report: what a front door's log says of a day. Lines become a tally, a tally becomes records to show."""
