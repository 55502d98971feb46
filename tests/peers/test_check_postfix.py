"""`fastscreen check` with a real Postfix."""

import json
import subprocess
import sys
from pathlib import Path

from peers.lab import Lab

PROGRAM = "import sys; from fastscreen.cli import main; sys.exit(main())"


def test_check_reads_the_220_of_a_real_smtpd(lab: Lab) -> None:
    file = lab.folder / "check.toml"
    file.write_text(f'[handoff]\nto = "pass:{lab.postfix.ours[1]}"\n[cache]\npath = ""\n')
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "check", "--json", "-c", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["what"]: check["detail"] for check in json.loads(done.stdout)["checks"]}
    assert found["handoff.to"] == f"{lab.postfix.ours[1]}: 220 mx.example.test ESMTP Postfix"
    assert found["user"].startswith("postfix; ")


def test_check_tells_what_the_daemon_could_not_read_again(lab: Lab, tmp_path: Path) -> None:
    """Started as root it reads the file; at SIGHUP it is the user postfix, who may not."""
    file = tmp_path / "fastscreen.toml"
    file.write_text(f'[handoff]\nto = "pass:{lab.postfix.ours[1]}"\n[cache]\npath = ""\n')
    done = subprocess.run([sys.executable, "-c", PROGRAM, "check", "-c", str(file)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"user: postfix cannot read {file} at SIGHUP: Permission denied" in done.stdout
