"""Builds the container image with buildah: `python -m tools.build_image`. `make image` runs it.

The base is made of Debian packages, without a shell and a package manager, where mmdebstrap is installed; otherwise
it is an image from a registry (`--base docker.io/library/python:3.13-slim-trixie`). The image is stored as
localhost/fastscreen and, for `docker load` and `podman load`, in dist/.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from fastscreen import __version__
from tools import debian_root
from tools.build_wheels import ROOT, source_date
from tools.debian_package import GLIBC, PINS, requirements
from tools.python_headers import DEBIAN_NAMES

BUILD = ROOT / "build/image"
PYTHON, SUITE = "3.13", "trixie"
PACKAGES = ("base-files", "netbase", "tzdata", "ca-certificates", "python3-minimal", f"libpython{PYTHON}-stdlib")
# What the packages above bring with them, and what the daemon does not need.
UNUSED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl5", "usr/share/pixmaps"),
    *("usr/share/lintian", "usr/share/bash-completion", "usr/share/debconf", "usr/share/polkit-1", "usr/lib/dpkg"),
    *("var/lib/dpkg", "var/lib/apt", "var/cache", "etc/apt", "etc/dpkg", "boot", "home", "usr/lib/apt"),
)
KEPT_PROGRAMS = ("python3", f"python{PYTHON}")
USERS = "root:x:0:0:root:/root:/usr/sbin/nologin\nfastscreen:x:25025:25025::/var/lib/fastscreen:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nfastscreen:x:25025:\n"


def make_base(folder: Path, machine: str) -> None:
    """Make the root of the base image: Python and the libraries that it needs."""
    if folder.exists():
        shutil.rmtree(folder)
    debian_root.make(
        folder, SUITE, PACKAGES, "--mode=root", f"--architectures={DEBIAN_NAMES[machine]}", variant="extract"
    )
    certificates = sorted((folder / "usr/share/ca-certificates").rglob("*.crt"))
    for name in UNUSED:
        shutil.rmtree(folder / name, ignore_errors=True)
    for program in [*(folder / "usr/bin").iterdir(), *(folder / "usr/sbin").iterdir()]:
        if program.name not in KEPT_PROGRAMS:
            program.unlink()
    (folder / "etc/passwd").write_text(USERS)
    (folder / "etc/group").write_text(GROUPS)
    (folder / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    # As `update-ca-certificates` would write it.
    (folder / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (folder / "etc/ssl/certs/ca-certificates.crt").write_text("".join(each.read_text() for each in certificates))
    for device in (folder / "dev").iterdir():
        if device.is_dir() and not device.is_symlink():
            shutil.rmtree(device)
        else:
            device.unlink()


def archive(folder: Path, target: Path, date: int) -> None:
    """Pack a root so that the same files give the same bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
        return member

    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=plain)


def download(folder: Path, dist: Path, machine: str) -> None:
    """Collect the wheel of fastscreen, the pinned ones of all that it needs, and pip, which is not in the image."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tag = PYTHON.replace(".", "")
    own = sorted(dist.glob(f"fastscreen-{__version__}-cp{tag}-*_{machine}.whl"))
    if len(own) != 1:
        raise RuntimeError(
            f"{dist}: {len(own)} wheels of {__version__} for Python {PYTHON}; expected one (make wheels)"
        )
    shutil.copy(own[0], folder)
    pins = folder / "requirements.txt"
    environment = {"python_full_version": f"{PYTHON}.0", "python_version": PYTHON}
    pins.write_text("".join(requirements((ROOT / "packaging" / PINS[0]).read_text(), environment)))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    pip += ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    pip += [word for minor in GLIBC for word in ("--platform", f"manylinux_2_{minor}_{machine}")]
    for wanted in (["--require-hashes", "--requirement", str(pins)], ["pip"]):
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pip cannot download what the image needs:\n{done.stderr[-3000:]}")
    (runner,) = folder.glob("pip-*.whl")
    runner.rename(folder / "pip.whl")


def context(folder: Path, dist: Path, machine: str) -> None:
    """Prepare the folder that the Containerfile is built in."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download(folder / "wheels", dist, machine)
    shutil.copy(ROOT / "packaging/container/fastscreen.toml", folder)
    (folder / "empty").mkdir()
    (folder / "fastscreen.toml").chmod(0o644)


def buildah(*arguments: str) -> str:
    """Run buildah; return its output."""
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"buildah {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def build(base: str, dist: Path, machine: str) -> Path:
    """Build the image, and return the archive of it."""
    date = source_date()
    context(BUILD / "context", dist, machine)
    if not base:
        print("making the base image from Debian packages", flush=True)
        make_base(BUILD / "root", machine)
        archive(BUILD / "root", BUILD / "root.tar", int(date))
        base = "localhost/fastscreen-base"
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, str(BUILD / "root.tar"), "/")
        buildah("config", "--env", "LANG=C.UTF-8", container)
        buildah("commit", "--quiet", "--rm", "--timestamp", date, container, base)
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    name = f"localhost/fastscreen:{__version__}"
    print(f"building {name}", flush=True)
    buildah(
        *("build", "--format", "docker", "--timestamp", date, "--file", str(ROOT / "packaging/Containerfile")),
        *(
            "--arch",
            DEBIAN_NAMES[machine],
            "--isolation",
            "chroot",
            "--pull-never" if "localhost/" in base else "--pull",
        ),
        *(
            "--build-arg",
            f"BASE={base}",
            "--build-arg",
            f"VERSION={__version__}",
            "--build-arg",
            f"REVISION={revision}",
        ),
        *("--tag", name, "--tag", "localhost/fastscreen:latest", str(BUILD / "context")),
    )
    target = dist / f"fastscreen-{__version__}-image-{DEBIAN_NAMES[machine]}.tar"
    target.unlink(missing_ok=True)
    buildah("push", "--quiet", name, f"docker-archive:{target}:fastscreen:{__version__}")
    return target


def main(arguments: list[str]) -> int:
    """Build, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", metavar="IMAGE", help="the base image (default: made here)")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="the folder with the wheels")
    options = parser.parse_args(arguments)
    if not options.base and not debian_root.is_available():
        print("mmdebstrap is not installed; expected it, or --base IMAGE", file=sys.stderr)
        return 2
    os.umask(0o022)
    try:
        target = build(options.base, options.dist, platform.machine())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
