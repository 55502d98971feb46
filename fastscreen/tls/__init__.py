"""The TLS processes: each takes clients that said STARTTLS from the workers, and passes their plaintext back."""
