"""Builds the Debian packages in dist/: `python -m tools.debian_package bookworm trixie`, as root. `make deb` runs it.

There is a package for each Debian release, because the core is compiled for one version of Python. It is built in a
folder with the build tools of that release, without a network; the wheels are downloaded before, by the hashes in
packaging/. `python -m tools.debian_package --pins` renews these.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

from packaging.requirements import Requirement

from fastscreen import __version__
from tools import debian_root

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build/deb"
PINS = ("requirements.txt", "build-requirements.txt")
BUILD_PACKAGES = ("build-essential", "debhelper", "lintian", "python3-dev", "python3-venv")
RELEASES = {"bookworm": "12", "trixie": "13"}
CONFIGURATION = "packaging/debian/fastscreen.toml"
PLACE = "build/fastscreen"  # in the root: the same for each build
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = range(17, 37)  # the versions 2.x that wheels may ask for: Debian 12 has 2.36
MAINTAINER = "fastscreen maintainers <maintainers@fastscreen.invalid>"

# Runs in namespaces of its own: no network, and mounts that end with it.
_INSIDE = """
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1
shift
exec chroot "$root" "$@"
"""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def debian_version(version: str, suite: str) -> str:
    """Return the version of the package. A newer release sorts higher, and 1.0.0rc1 before 1.0.0."""
    return re.sub(r"\.?(a|b|rc|dev)(?=\d)", r"~\1", version) + f"+deb{RELEASES[suite]}"


def requirements(text: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the requirements of a file with pins that apply there, with their hashes and without their condition."""
    for block in re.findall(r"^\w(?:.*\\\n)*.*$", text, re.MULTILINE):
        head, *hashes = block.split("\\\n")
        requirement = Requirement(head.strip())
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            requirement.marker = None
            yield " \\\n".join((str(requirement), *(each.strip() for each in hashes))) + "\n"


def commit_time() -> str:
    """Return the time of the last commit, which is the time of everything in the package."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


class Builder:
    """The root of a release, and the source tree in it."""

    def __init__(self, suite: str, folder: Path) -> None:
        self._suite, self._root = suite, folder
        self._tree = folder / PLACE
        archive = CACHE / f"build-{suite}.tar"
        if not archive.exists():
            debian_root.make(archive, suite, BUILD_PACKAGES, variant="minbase")
        subprocess.run(["tar", "--numeric-owner", "-xf", archive, "-C", folder], check=True)
        self._copy_sources()
        self._download()

    def _copy_sources(self) -> None:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split("\0")
        for name in filter(None, names):
            source, target = ROOT / name, self._tree / name
            if source.is_symlink() or source.exists():  # not deleted since the last commit
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)

    def _download(self) -> None:
        """Fetch the wheels of this release's Python: pip reads conditions only for the Python that runs it."""
        asked = "import platform as p; print(p.python_version())"
        version = self.run("/usr/bin/python3", "-c", asked).strip()
        architecture = self.run("dpkg", "--print-architecture").strip()
        short = ".".join(version.split(".")[:2])
        environment = {"python_full_version": version, "python_version": short}
        wheels = CACHE / f"wheels-{self._suite}-{architecture}"
        for name in PINS:
            chosen = self._tree / "packaging" / name
            chosen.write_text("".join(requirements(chosen.read_text(), environment)))
            command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", f"--python-version={short}", "--implementation=cp"]
            command += [f"--abi={abi}" for abi in (f"cp{short.replace('.', '')}", "abi3", "none")]
            command += [f"--platform=manylinux_2_{minor}_{MACHINES[architecture]}" for minor in GLIBC]
            command += [f"--dest={wheels}", f"--requirement={chosen}"]
            subprocess.run(command, check=True)
        shutil.copytree(wheels, self._tree / "wheels")

    def run(self, *command: str, environment: Mapping[str, str] | None = None, folder: str = "/") -> str:
        """Run a command in the root; return its output. Its messages go to the log of the build."""
        inside = [
            "env",
            "-i",
            f"--chdir={folder}",
            *(f"{k}={v}" for k, v in {**_ENVIRONMENT, **(environment or {})}.items()),
        ]
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh"]
        done = subprocess.run([*unshare, str(self._root), *inside, *command], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def build(self, version: str, output: Path, log: Path) -> Path:
        """Build the package of a version; return its file in `output`."""
        init = self._tree / "fastscreen/__init__.py"
        init.write_text(
            re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', init.read_text(), flags=re.MULTILINE)
        )
        configuration = (ROOT / CONFIGURATION).read_text()
        if version != __version__:  # for the tests: an upgrade brings another configuration file
            configuration += f"\n# As of {version}\n"
        (self._tree / CONFIGURATION).write_text(configuration)
        shutil.rmtree(self._tree / "debian", ignore_errors=True)  # what a build before has left there
        shutil.copytree(self._tree / "packaging/debian", self._tree / "debian")
        time, full = commit_time(), debian_version(version, self._suite)
        (self._tree / "debian/changelog").write_text(
            f"fastscreen ({full}) {self._suite}; urgency=medium\n\n  * changelog.gz lists the changes.\n\n"
            f" -- {MAINTAINER}  {formatdate(int(time))}\n"
        )
        environment = {"SOURCE_DATE_EPOCH": time, "DEB_BUILD_OPTIONS": "noautodbgsym"}
        command = ["sh", "-c", 'exec "$@" 2>&1', "sh", "dpkg-buildpackage", "-b", "-us", "-uc", "-nc"]
        log.write_text(self.run(*command, environment=environment, folder=f"/{PLACE}"))
        (built,) = (self._tree.parent).glob(f"fastscreen_{full}_*.deb")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(built, output / built.name))

    def lint(self, package: Path) -> str:
        """Return lintian's errors and warnings without those that fastscreen.lintian-overrides explains."""
        shutil.copy(package, self._root / "tmp")
        return self.run("lintian", "--allow-root", "--fail-on=none", f"/tmp/{package.name}")


def build(suite: str, versions: Sequence[str], output: Path) -> list[Path]:
    """Build a package of each version for a release. RuntimeError: lintian found something."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=CACHE) as folder:
        Path(folder).chmod(0o755)
        builder = Builder(suite, Path(folder))
        built = [builder.build(version, output, CACHE / f"{suite}-{version}.log") for version in versions]
        found = builder.lint(built[-1])
    if found:
        raise RuntimeError(f"lintian: {built[-1].name}\n{found}")
    return built


def renew_pins() -> None:
    """Write the newest versions that pyproject.toml permits, and their hashes, for each Python and architecture."""
    packaging = ROOT / "packaging"
    for source, options, target in (
        (ROOT / "pyproject.toml", ["--extra=cluster"], PINS[0]),
        (packaging / "build-requirements.in", [], PINS[1]),
    ):
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", "--universal"]
        command += ["--python-version=3.11", "--generate-hashes", "--no-annotate", "--custom-compile-command=make pins"]
        subprocess.run([*command, *options, f"--output-file={packaging / target}", source], check=True, cwd=ROOT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=RELEASES, metavar="SUITE", default=list(RELEASES))
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--pins", action="store_true", help="renew packaging/*requirements.txt instead")
    arguments = parser.parse_args()
    try:
        if arguments.pins:
            renew_pins()
            return 0
        if os.geteuid():
            raise RuntimeError("the packages are built in a chroot, which needs root")
        for suite in arguments.suites:
            for package in build(suite, [__version__], arguments.output):
                print(package)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"tools.debian_package: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
