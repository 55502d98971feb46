"""Big senders' networks, from their SPF records, as a table for the access list; and the same to turn domains away."""
