"""fastscreen: lets only those SMTP clients through to the mail server that behave like mail servers."""

__version__ = "0.1.0"
