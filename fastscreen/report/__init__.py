"""fastscreen report: summarizes logs. Log lines are counted in a tally, from which the records of a report are made."""
