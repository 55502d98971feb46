"""The core of fastscreen, from accept to verdict and hand-off (Cython; see ext/)."""

from typing import final

@final
class NetworkTable:
    """A compiled table of networks in Postfix's CIDR form, cidr_table(5): the first rule that matches, in file order.

    text: the table. Rules are `ADDRESS RESULT` or `NETWORK/LENGTH RESULT` (brackets around the address are allowed),
    `!` before the pattern negates it, `if PATTERN` ... `endif` nest up to 32 deep. An IPv4 pattern never matches an
    IPv6 client nor the other way round, negated or not. Lines that begin with white space continue the one before.
    source: what the warnings call the table.

    A bad line is skipped and gets a warning; it never raises. The memory of a table grows with the number of its
    rules (16 octets an IPv4 rule, 40 an IPv6 rule, at most 32 times that inside nested negated blocks), the time of
    a look-up with the logarithm.
    """

    def __init__(self, text: bytes, source: str) -> None: ...

    @property
    def results(self) -> list[str]:
        """The distinct results, in the order of their first appearance; octets that are not UTF-8 are surrogates."""

    @property
    def warnings(self) -> list[str]:
        """One line for each bad line of the text, with source and line number; at most 101."""

    def lookup(self, address: str) -> str | None:
        """Return the result for an IPv4 or IPv6 address; None when no rule matches or it is no address.

        IPv4-mapped IPv6 (::ffff:192.0.2.1) is looked up as IPv4, as the core treats it everywhere (reference 2.8).
        """

    def __len__(self) -> int:
        """The number of rules, without bad lines, if and endif."""
