"""One version everywhere, and files that are published: reproducible, with names and checksums that tools can read."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tomllib
from io import BytesIO
from pathlib import Path

import pytest

from fastscreen import __version__
from fastscreen.config import environment, parse
from tools import build_wheels, check_wheels, debian_root, python_headers, release

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\b(FASTSCREEN_[A-Z]+(?:__[A-Z0-9_]+)?)\b")


def texts(*patterns: str) -> dict[Path, str]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {path: path.read_text() for path in sorted(found)}


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fastscreen.__version__"}
    assigned = [
        path.name for path, text in texts("fastscreen/**/*.py").items() if re.search(r"(?m)^__version__ =", text)
    ]
    assert assigned == ["__init__.py"]


def test_pages_name_the_version() -> None:
    """Examples and names of files, and the manual pages, which `make docs` writes."""
    found = {
        (path.name, version)
        for path, text in texts("docs/*.md", "contrib/man/*", "contrib/**/*.yaml", "README.md").items()
        for version in re.findall(r'fastscreen(?:": "|[-: ])([0-9]+\.[0-9]+\.[0-9]+)\b', text)
    }
    assert {name for name, version in found if version == __version__} > {"fastscreen.1", "containers.md", "control.md"}
    assert {(name, version) for name, version in found if version != __version__ and name != "benchmark.md"} == set()


def test_the_changelog_has_the_version() -> None:
    """As what will be released, or as what has been."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(
        rf"(?m)^## (?:\[Unreleased\]\n\n.*\b{re.escape(__version__)}\b|\[{re.escape(__version__)}\] - )", text
    )


def test_variables_that_pages_and_examples_name_exist() -> None:
    named = {
        (path.name, name)
        for path, text in texts("docs/*.md", "contrib/**/*", "packaging/**/*").items()
        for name in VARIABLE.findall(text)
        if "__" in name
    }
    assert len(named) > 20
    assert {(page, name) for page, name in named if name not in environment.VARIABLES} <= {
        ("kubernetes.md", "FASTSCREEN_LISTEN__")
    }


@pytest.mark.parametrize("example", ["contrib/compose/compose.yaml", "contrib/kubernetes/fastscreen.yaml"])
def test_the_variables_of_examples_are_valid(example: str) -> None:
    """With the file in the image, as in a container."""
    text = (ROOT / example).read_text()
    compose = re.findall(r"(?m)^ +(FASTSCREEN_\w+): (.+)$", text)
    kubernetes = re.findall(
        r"(?:- \{name: |- name: )(FASTSCREEN_\w+)(?:, value: |\n +value: )(.+?)\}?$", text, re.MULTILINE
    )
    given = {name: value.strip("'") if value[0] == "'" else value.strip('"') for name, value in compose + kubernetes}
    assert len(given) >= 5
    assert set(re.findall(r"\bFASTSCREEN_[A-Z_]+", text)) <= set(environment.VARIABLES)
    values, problems = environment.read({environment.SWITCH: environment.READ, **given})
    assert problems == [] and len(values) == len(given)
    image = tomllib.loads((ROOT / "packaging/container/fastscreen.toml").read_text())
    assert image["mode"] == "shadow"
    config = parse((ROOT / "packaging/container/fastscreen.toml").read_text(), "FILE", values)
    assert config.mode == "shadow" and config.dnsbl.threshold == 3


@pytest.mark.parametrize("example", ["contrib/compose/compose.yaml", "contrib/kubernetes/fastscreen.yaml"])
def test_examples_mount_each_volume_of_the_image(example: str) -> None:
    """The root is read-only; and docker and podman would make a nameless volume at each start, and keep it."""
    (volumes,) = re.findall(r"(?m)^VOLUME \[(.+)\]$", (ROOT / "packaging/Containerfile").read_text())
    text = (ROOT / example).read_text()
    mounted = dict(
        re.findall(r"(?m)^ +- (?:\{name: )?(\w+)(?::|, mountPath: )(/var/lib/fastscreen|/run/fastscreen)\}?$", text)
    )
    assert sorted(mounted.values()) == sorted(re.findall(r'"(.+?)"', volumes))
    for name in mounted:
        assert re.search(rf"(?m)^ *(?:- (?:metadata: \{{)?name: {name}\}}?|{name}:)$", text), name


def test_each_replica_has_its_own_name_in_a_cluster() -> None:
    text = (ROOT / "contrib/kubernetes/fastscreen.yaml").read_text()
    assert re.search(
        r"- name: FASTSCREEN_CLUSTER__NAME\n +valueFrom: \{fieldRef: \{fieldPath: metadata.name\}\}\n", text
    )


def test_postfix_of_compose_has_the_name_of_its_container() -> None:
    """Debian's package writes the name of the container that builds the image."""
    configure = (ROOT / "contrib/compose/postfix/configure").read_text()
    assert "\npostconf -X myhostname\n" in configure
    compose = (ROOT / "contrib/compose/compose.yaml").read_text()
    (hostname,) = re.findall(r"(?m)^    hostname: (.+)$", compose)
    assert f"FASTSCREEN_HOSTNAME: {hostname}\n" in compose
    assert re.search(r"(?m)^    depends_on: \[postfix\]$", compose)


def test_the_image_is_of_an_ordinary_user() -> None:
    text = (ROOT / "packaging/Containerfile").read_text()
    (user,) = re.findall(r"(?m)^USER ([0-9]+):\1$", text)
    assert int(user) > 1000
    assert set(re.findall(r"--chown=([0-9]+):", text)) == {user}
    assert f"fsGroup: {user}" in (ROOT / "contrib/kubernetes/fastscreen.yaml").read_text()


def archive(path: Path, names: list[str], *, mtime: int, uid: int, mode: int) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.mtime, member.uid, member.uname, member.mode, member.size = mtime, uid, f"user{uid}", mode, len(name)
            tar.addfile(member, BytesIO(name.encode()))
    return path


def test_the_same_files_give_the_same_source_archive(tmp_path: Path) -> None:
    first = archive(tmp_path / "first", ["a/x", "a/y"], mtime=1_700_000_000, uid=0, mode=0o644)
    second = archive(tmp_path / "second", ["a/y", "a/x"], mtime=1_800_000_000, uid=1000, mode=0o600)
    third = archive(tmp_path / "third", ["a/y", "a/z"], mtime=1_700_000_000, uid=0, mode=0o644)
    for path in (first, second, third):
        build_wheels.normalize(path, path.with_suffix(".gz"), 1_750_000_000)
    assert first.with_suffix(".gz").read_bytes() == second.with_suffix(".gz").read_bytes()
    assert first.with_suffix(".gz").read_bytes() != third.with_suffix(".gz").read_bytes()
    with gzip.open(first.with_suffix(".gz")) as packed, tarfile.open(fileobj=packed) as tar:
        members = {member.name: member for member in tar}
        contents = {name: packed_file.read() for name in members if (packed_file := tar.extractfile(name))}
    assert contents == {"a/x": b"a/x", "a/y": b"a/y"}
    assert {(one.mtime, one.uid, one.uname, one.mode) for one in members.values()} == {(1_750_000_000, 0, "", 0o644)}


def test_links_stay_links_in_a_source_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "before", "w:gz") as tar:
        link = tarfile.TarInfo("a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "target"
        tar.addfile(link)
    build_wheels.normalize(tmp_path / "before", tmp_path / "after.gz", 1)
    with tarfile.open(tmp_path / "after.gz") as tar:
        assert tar.getmember("a/link").linkname == "target"


def test_names_of_wheels() -> None:
    for version in build_wheels.PYTHONS:
        for machine in build_wheels.MACHINES:
            name = f"fastscreen-{__version__}-{build_wheels.tag(version, machine)}.whl"
            assert check_wheels.parts(Path(name)) == (version, machine)
    assert build_wheels.core_name("3.12", "aarch64") == "core.cpython-312-aarch64-linux-gnu.so"
    with pytest.raises(check_wheels.CheckError):
        check_wheels.parts(Path("fastscreen-1.0.0-cp312-cp313-manylinux_2_28_x86_64.whl"))


def test_the_classifiers_are_the_pythons_of_the_wheels() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    assert named == list(build_wheels.PYTHONS)
    assert project["requires-python"] == f">={build_wheels.PYTHONS[0]}"


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_bytes(b"b")
    (tmp_path / "a.tar.gz").write_bytes(b"a")
    release.write_sums(tmp_path)
    release.write_sums(tmp_path)  # not of itself
    lines = (tmp_path / release.SUMS).read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(each).hexdigest()}  {name}" for each, name in ((b"a", "a.tar.gz"), (b"b", "b.whl"))
    ]
    command = ["sha256sum", "--check", "--strict", "--quiet", release.SUMS]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    (tmp_path / "b.whl").write_bytes(b"other")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    ("tag", "heading", "allowed"),
    [
        ("", "## [Unreleased]", True),
        (f"v{__version__}", f"## [{__version__}] - 2027-01-02", True),
        (f"v{__version__}", "## [Unreleased]", False),
        (f"v{__version__}", f"## [{__version__}]", False),
    ],
)
def test_a_tagged_commit_has_a_dated_section(
    tag: str, heading: str, allowed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "_output", lambda *command: tag)
    if allowed:
        release.check_changelog()
    else:
        with pytest.raises(release.ReleaseError):
            release.check_changelog()


def test_parts_of_a_release(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """All in this order, or only some; what was built stays unless it is built again; a failure ends it."""
    ran: list[str] = []

    def run(what: str, *command: str) -> None:
        ran.append(what)
        if what == fails:
            raise release.ReleaseError(f"{what} failed")

    fails, commit = "", "first"
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "fastscreen.whl").touch()
    (tmp_path / "commit").write_text(commit)
    monkeypatch.setattr(release, "DIST", dist)
    monkeypatch.setattr(release, "BUILD", tmp_path)
    monkeypatch.setattr(release, "_run", run)
    monkeypatch.setattr(release, "_output", lambda *command: commit if "HEAD" in command[-1:] else "")
    monkeypatch.setattr(release, "check_changelog", lambda: None)
    monkeypatch.setattr(release, "describe", lambda: ran.append("sums"))
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "podman" else program)
    assert release.main(["--parts", "sums image check-image"]) == 0
    assert ran == ["image", "sums"] and (dist / "fastscreen.whl").exists()
    assert "skipped: check-image; podman is not installed" in capsys.readouterr().out
    ran.clear()
    commit = "second"
    assert release.main(["--parts", "image"]) == 1
    assert ran == [] and "not built from this commit" in capsys.readouterr().err
    fails = "deb"
    assert release.main([]) == 1
    assert ran == ["wheels", "check-wheels", "image", "deb"] and not dist.exists()
    fails = ""
    assert release.main(["--parts", "sums"]) == 0
    with pytest.raises(SystemExit):
        release.main(["--parts", "wheel"])


def test_make_names_the_parts_of_a_release() -> None:
    text = (ROOT / "Makefile").read_text()
    assert f"PARTS ?= {' '.join(release.PARTS)}\n" in text
    assert all(re.search(rf"(?m)^{part}:", text) for part in release.PARTS if part != "sums")


@pytest.mark.parametrize(
    ("machine", "root", "emulated", "size", "said"),
    [
        ("x86_64", True, False, 44.0, "ok: {}: fastscreen 1, installed and run (Debian sid), 44.0 MB"),
        ("aarch64", True, True, 44.0, "ok: {}: fastscreen 1, installed and run (Debian sid, emulated), 44.0 MB"),
        ("aarch64", True, False, 44.0, "not run: {}: this machine is x86_64"),
        ("x86_64", False, False, 44.0, "not run: {}: python3.14 is not installed"),
        ("x86_64", True, False, 60.1, ""),
    ],
)
def test_wheels_without_an_installed_python(
    machine: str, root: bool, emulated: bool, size: float, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interpreter(version: str) -> Path:
        raise python_headers.NotFoundError(f"python{version} is not installed")

    wheel = tmp_path / f"fastscreen-1-{build_wheels.tag('3.14', machine)}.whl"
    wheel.touch()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(debian_root, "is_available", lambda: True)
    monkeypatch.setattr(python_headers, "interpreter", interpreter)
    monkeypatch.setattr(check_wheels, "emulator", lambda machine: tmp_path if emulated else None)
    monkeypatch.setattr(check_wheels, "check_tag", lambda wheel: None)
    monkeypatch.setattr(check_wheels, "python_functions", lambda wheel: set())
    monkeypatch.setattr(check_wheels, "in_debian", lambda *wheel: ("fastscreen 1", size))
    if said:
        assert list(check_wheels.checked(tmp_path))[1:] == [said.format(wheel.name)]
    else:
        with pytest.raises(check_wheels.CheckError, match="at most 60"):
            list(check_wheels.checked(tmp_path))
