"""What every process of the daemon shares: messages between processes, privileges, the log, lasting faults."""
