"""The providers that there are, whom a configuration means, and its keys."""

from pathlib import Path

import pytest

from fastscreen.config import ConfigError, load, providers
from fastscreen.config.list_kinds import Domain
from fastscreen.config.providers import Source, chosen


def test_the_data_are_in_order() -> None:
    known = providers.known()
    names = [source.name for source in known]
    assert len(names) == len(set(names)) > 40
    for source in known:
        assert "." not in source.name  # else it could be taken for a domain of one's own
        assert source.name == source.name.lower()
        assert source.domains
        for domain in source.domains:
            assert Domain().parse(domain) == domain
    domains = [domain for source in known for domain in source.domains]
    assert len(domains) == len(set(domains))
    assert providers.groups() == ("webmail", "social", "commerce", "bulk", "misc")


def test_yahoo_is_its_hosts() -> None:
    (yahoo,) = chosen((), ("yahoo",), ())
    assert yahoo == Source("yahoo", "webmail", ("_spf1.yahoo.com", "_spf2.yahoo.com", "_spf3.yahoo.com"))


def test_groups_names_and_domains_add_up() -> None:
    commerce = chosen(("commerce",), (), ())
    assert {source.group for source in commerce} == {"commerce"}
    both = chosen(("commerce",), ("paypal", "github"), ("a.example", "a.example"))
    assert [source.name for source in both] == [*(source.name for source in commerce), "github", "a.example"]
    assert both[-1] == Source("a.example", "own", ("a.example",))


def test_exclude_has_the_last_word() -> None:
    left = chosen(("webmail",), (), ("a.example", "b.example"), ("google", "_spf2.yahoo.com", "gmx.net", "a.example"))
    by_name = {source.name: source for source in left}
    assert "google" not in by_name and "a.example" not in by_name
    assert by_name["yahoo"].domains == ("_spf1.yahoo.com", "_spf3.yahoo.com")
    assert by_name["gmx"].domains == ("gmx.com",)
    assert chosen((), ("google",), (), ("_spf.google.com",)) == ()


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ('[allowlist]\ngroups = ["bulks"]', 'allowlist.groups: item 1: unknown group "bulks"; expected "webmail"'),
        (
            '[allowlist]\nproviders = ["gogle"]',
            'allowlist.providers: item 1: unknown provider "gogle"; expected a name',
        ),
        ('[allowlist]\nproviders = ["a.example"]', 'unknown provider "a.example"'),
        ('[allowlist]\ndomains = ["example"]', 'allowlist.domains: item 1: bad domain "example"; expected a domain'),
        ('[allowlist]\ndomains = ["a.example", "A.Example."]', "occurs twice; expected each item once"),
        ('[allowlist]\ndomains = ["a..example"]', "bad domain"),
        ('[allowlist]\ndomains = ["a.example;x"]', "bad domain"),
        ('[allowlist]\ndomains = ["bücher.example"]', "bad domain"),
        ('[allowlist]\ndomains = ["192.0.2.1"]', "bad domain"),
        ('[allowlist]\nexclude = ["gogle"]', 'unknown provider "gogle"'),
        ('[allowlist]\ninterval = "-1d"', "allowlist.interval: bad time"),
        ('[allowlist]\npath = "here"', "allowlist.path: bad path"),
        ('[denylist]\ndomains = ["google"]', "denylist.domains: item 1: bad domain"),
        (
            '[denylist]\npath = "/var/lib/fastscreen/allowlist.cidr"',
            "denylist.path: this is also allowlist.path; expected another file",
        ),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, lines: str, error: str) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(lines)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert error in str(caught.value)


def test_names_and_domains_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "fastscreen.toml"
    file.write_text(
        '[allowlist]\ngroups = ["Bulk"]\nproviders = ["Google"]\ndomains = ["A.Example."]\n'
        'exclude = ["SendGrid", "B.example"]\ninterval = 2\n'
    )
    config = load(file).allowlist
    assert (config.groups, config.providers, config.domains) == (("bulk",), ("google",), ("a.example",))
    assert (config.exclude, config.interval) == (("sendgrid", "b.example"), 7200)
