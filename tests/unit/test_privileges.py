"""Switching to another user cannot be undone, and errors are one line."""

import json
import os
import resource
import subprocess
import sys

import pytest

from fastscreen.process import privileges

_BECOME = """
import json, os, sys
from fastscreen.process import privileges
try:
    privileges.become(sys.argv[1])
except privileges.PrivilegeError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
regained = []
for call in (os.setuid, os.seteuid, os.setgid, os.setegid):
    try:
        call(0)
        regained.append(call.__name__)
    except PermissionError:
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "regained": regained,
                  "new": status["NoNewPrivs"].strip(), "capabilities": int(status["CapPrm"], 16)}))
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _become(user: str) -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-c", _BECOME, user], capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


@needs_root
def test_root_becomes_the_user_for_good() -> None:
    answer = _become("nobody")
    assert answer["uid"] == [65534] * 3
    assert answer["gid"] == [65534] * 3
    assert answer["groups"] == [65534]
    assert answer["regained"] == []
    assert answer["new"] == "1"
    assert answer["capabilities"] == 0


@needs_root
def test_root_is_no_user_to_become() -> None:
    assert _become("root") == {"error": "user: 'root' is root: expected an unprivileged user, such as 'postfix'"}


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(privileges.PrivilegeError, match=r"^user: 'no-such-user' does not exist on this"):
        privileges.become("no-such-user")


@needs_root
def test_another_user_cannot_become_a_third() -> None:
    program = _BECOME.replace("try:", "os.setgroups([]); os.setgid(65534); os.setuid(65534)\ntry:", 1)
    result = subprocess.run(
        [sys.executable, "-c", program, "daemon"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(result.stdout) == {"error": "user: only root can become 'daemon', this is 'nobody'"}


@pytest.mark.parametrize(
    ("wanted", "allowed", "limit"),
    [(5000, True, 5000), (150, True, 200), (0, True, 200), (5000, False, 200), (3_000_000_000, True, 1_000_000)],
)
def test_root_raises_the_hard_limit_as_far_as_it_is_needed(
    wanted: int, allowed: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does it (setrlimit(2)): the hard one with CAP_SYS_RESOURCE only, and not beyond nr_open."""
    now = [(100, 200)]

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if limits[1] > 1_000_000 or (limits[1] > now[0][1] and not allowed):
            raise ValueError("not allowed to raise maximum limit")
        now[0] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    monkeypatch.setattr(privileges, "_descriptors_of_the_kernel", lambda: 1_000_000)
    assert privileges.raise_descriptor_limit(wanted) == limit
    assert now == [(limit, limit)]


def test_the_kernels_own_limit_is_read() -> None:
    assert privileges._descriptors_of_the_kernel() >= resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 0


def test_descriptor_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        assert privileges.raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
