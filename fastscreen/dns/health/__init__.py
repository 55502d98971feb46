"""Whether the DNS lists are well: probed as RFC 5782 says, taken out of the score when they are not, and put back."""
