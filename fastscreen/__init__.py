"""fastscreen: lets only those SMTP clients through to the mail server that behave like mail servers."""

__version__ = "1.0.0"
