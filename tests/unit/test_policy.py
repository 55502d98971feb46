"""From configuration to policy: errors that only this step finds, and limits that need more descriptors."""

import re
import resource
from pathlib import Path

import msgspec
import pytest

from fastscreen import config
from fastscreen.config.model import Endpoint, Limits, Listen
from fastscreen.process import descriptor_limits, privileges
from fastscreen.screening import policy

TWO_ADDRESSES = Listen(addresses=(Endpoint("0.0.0.0", 25), Endpoint("::", 25)), proxy=(), workers=1)


def queues(pre_queue: int, post_queue: int) -> Limits:
    return msgspec.structs.replace(config.default().limits, pre_queue=pre_queue, post_queue=post_queue)


@pytest.mark.parametrize(
    ("queued", "files", "allowed", "warned"),
    [
        (queues(0, 100), 20000, (19798, 100), ""),
        (queues(10000, 1000), 20000, (10000, 1000), ""),
        (queues(10000, 1000), 4096, (2994, 1000), "limits.pre_queue 10000: only 2994 clients can be under test"),
        (queues(0, 1000), 1024, (461, 461), "limits.post_queue 1000: only 461 hand-offs can be in flight"),
        (queues(300, 2000), 1024, (300, 622), "limits.post_queue 2000: only 622 hand-offs can be in flight"),
        (queues(5000, 100), 64, (10, 100), "limits.pre_queue 5000: only 10 clients can be under test"),
    ],
)
def test_limits_follow_from_the_descriptors_there_are(
    queued: Limits, files: int, allowed: tuple[int, int], warned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither many hand-offs nor many silent clients leave nothing to the others."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    settings = msgspec.structs.replace(config.default(), limits=queued, listen=TWO_ADDRESSES)
    limits = descriptor_limits.worker_limits(settings)
    assert (limits.pre_queue, limits.post_queue) == allowed
    assert [warning.partition(": the limit")[0] for warning in limits.warnings] == ([warned] if warned else [])


def test_a_workers_part_of_few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lower bound gives all workers together more than was asked for."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20000, 20000))
    settings = msgspec.structs.replace(config.default(), limits=queues(10, 5), listen=TWO_ADDRESSES)
    parts = [descriptor_limits.worker_limits(settings, descriptor_limits.Share(number, 2)) for number in range(2)]
    assert [(limits.pre_queue, limits.post_queue) for limits in parts] == [(5, 3), (5, 2)]


def test_the_remedy_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following the advice of the warning removes it."""
    files = 256
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    settings = msgspec.structs.replace(config.default(), limits=queues(3000, 1000), listen=TWO_ADDRESSES)
    for share in (descriptor_limits.WHOLE, descriptor_limits.Share(0, 3)):
        files = 256
        found = {
            re.findall(r"LimitNOFILE=([0-9]+)", warning)[0]
            for warning in descriptor_limits.worker_limits(settings, share).warnings
        }
        (needed,) = found
        files = int(needed)
        limits = descriptor_limits.worker_limits(settings, share)
        assert limits.warnings == []
        assert (limits.pre_queue, limits.post_queue) == (share.of(3000), share.of(1000))
        files -= 1
        assert descriptor_limits.worker_limits(settings, share).warnings


def test_relayed_sessions_have_their_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[handoff]\nto = "proxy:127.0.0.1:10025"\n[limits]\npost_queue = 100\n')
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20000, 20000))
    limits = descriptor_limits.worker_limits(config.load(path))
    free = 20000 - 100 - 128 - 2
    assert limits.warnings == []
    assert limits.post_queue == 100
    assert limits.pre_queue + limits.post_queue + 2 * limits.relay in (free, free - 1)
    assert abs(limits.pre_queue - 2 * limits.relay) < 3


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
    with pytest.raises(config.ConfigError, match="user: 'nosuchuser' does not exist on this system"):
        privileges.user_of(config.load(path))


def test_the_shares_of_all_workers_add_up() -> None:
    for limit in (1, 7, 100, 101, 5000):
        for count in (1, 2, 3, 8):
            shares = [descriptor_limits.Share(number, count).of(limit) for number in range(count)]
            assert sum(shares) == max(limit, count)
            assert max(shares) - min(shares) <= 1
