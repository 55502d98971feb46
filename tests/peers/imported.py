"""Settings profiles made by `fastscreen import-postfix`: of each main.cf in tests/dialogues/imported.

The real postscreen gets the parameters of that file, fastscreen the configuration that the import makes of it. What
belongs to the lab (paths, ports, logs) is the lab's on both sides.
"""

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from peers import profiles
from peers.postfix import settled
from peers.profiles import DIALOGUES, Settings
from peers.screener import COMMAND

FOLDER = DIALOGUES / "imported"

MASTER = """\
smtp      inet  n       -       n       -       1       postscreen
smtpd     pass  -       -       n       -       -       smtpd
dnsblog   unix  -       -       n       -       0       dnsblog
tlsproxy  unix  -       -       n       -       0       tlsproxy
"""

# the lab's own, or not for a service
_OF_THE_LAB = {
    "config_directory",
    "data_directory",
    "queue_directory",
    "smtpd_service_name",
    "postscreen_cache_map",
    "compatibility_level",
}
_OURS = ("to", "ident", "stamps")


@dataclass(frozen=True)
class Imported:
    """parameters: for postscreen's `-o`. settings: as fastscreen's configuration file has them."""

    parameters: dict[str, str]
    settings: Settings


def names() -> list[str]:
    return [f"imported-{path.stem}" for path in sorted(FOLDER.glob("*.cf"))]


def make(name: str, tables: Path, folder: Path) -> Imported:
    """Import one. tables: the folder of the lookup tables; folder: a new one, for the files of this."""
    folder.mkdir(parents=True)
    text = (FOLDER / f"{name.removeprefix('imported-')}.cf").read_text()
    (folder / "main.cf").write_text(text.replace("@tables@", str(tables)))
    settled(folder / "main.cf")
    (folder / "master.cf").write_text(MASTER)
    made = folder / "fastscreen.toml"
    subprocess.run(
        [str(COMMAND), "import-postfix", "--config-dir", str(folder), "--output", str(made)],
        check=True,
        capture_output=True,
    )
    said = subprocess.run(["postconf", "-c", str(folder), "-n"], check=True, capture_output=True, text=True).stdout
    parameters = dict(line.split(" =", 1) for line in said.splitlines())
    return Imported(
        {key: value.strip() for key, value in parameters.items() if key not in _OF_THE_LAB},
        without_the_labs(tomllib.loads(made.read_text())),
    )


def without_the_labs(settings: Settings) -> Settings:
    """The same without where it listens, hands off and logs."""
    kept = {key: value for key, value in settings.items() if key not in ("listen", "handoff")}
    log = {key: value for key, value in settings.get("log", {}).items() if key not in _OURS}
    return profiles.merge(kept, {}) | {"log": log}
