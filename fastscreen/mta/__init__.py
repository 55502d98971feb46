"""The MTA behind fastscreen: what it announces, and an embedded one that receives mail for tests and trials."""
