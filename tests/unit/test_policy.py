"""From configuration to policy: what only this step can refuse, and limits that the descriptors do not allow."""

import resource
from pathlib import Path

import msgspec
import pytest

from fastscreen import config, policy, privileges
from fastscreen.config.model import Endpoint, Limits, Listen

TWO_ADDRESSES = Listen(addresses=(Endpoint("0.0.0.0", 25), Endpoint("::", 25)), proxy=(), workers=1)


def queues(pre_queue: int, post_queue: int) -> Limits:
    return msgspec.structs.replace(config.default().limits, pre_queue=pre_queue, post_queue=post_queue)


@pytest.mark.parametrize(
    ("limits", "files", "allowed", "warned"),
    [
        (queues(0, 100), 20000, 19798, False),
        (queues(10000, 1000), 20000, 10000, False),
        (queues(10000, 1000), 4096, 2994, True),
        (queues(0, 1000), 1024, 10, True),
        (queues(5000, 100), 64, 10, True),
    ],
)
def test_clients_under_test_leave_descriptors_for_known_ones(
    limits: Limits, files: int, allowed: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    settings = msgspec.structs.replace(config.default(), limits=limits, listen=TWO_ADDRESSES)
    got, warnings = policy.pre_queue_limit(settings)
    assert got == allowed
    assert bool(warnings) == warned


def test_a_domain_that_is_too_long_to_ask_is_told_in_one_line(tmp_path: Path) -> None:
    domain = "a." * 100 + "example"
    path = tmp_path / "c.toml"
    path.write_text(f'[dnsbl]\nsites = ["{domain}"]\n')
    with pytest.raises(config.ConfigError, match=r"dnsbl\.sites: .*too long") as error:
        policy.build(config.load(path), "/tmp/mta", print)
    assert "\n" not in str(error.value)


def test_an_unknown_user_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('user = "nosuchuser"\n')
    with pytest.raises(config.ConfigError, match="user: there is no user 'nosuchuser'"):
        privileges.user_of(config.load(path))


def test_the_shares_of_all_workers_add_up() -> None:
    for limit in (1, 7, 100, 101, 5000):
        for count in (1, 2, 3, 8):
            shares = [policy.Share(number, count).of(limit) for number in range(count)]
            assert sum(shares) == max(limit, count)
            assert max(shares) - min(shares) <= 1
