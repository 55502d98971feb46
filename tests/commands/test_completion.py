"""fastscreen completion, in a real shell where there is one."""

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest
from peers import needs
from robust.harness import wait_until

from fastscreen.cli import COMMANDS, main
from fastscreen.cli.completion import SHELLS


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = script(shell, capsys)
    for command in COMMANDS:
        assert command in made
    assert "--watch" in made or "-l watch" in made


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = script(shell, capsys)
    subprocess.run([needs.program(shell), "-n"], input=made, text=True, check=True)


def complete(made: str, *words: str, folder: Path | None = None) -> list[str]:
    """What bash offers behind these words."""
    line = " ".join(f"'{word}'" for word in words)
    asking = f"""
{made}
COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
eval "$(complete -p fastscreen | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(
        [needs.program("bash"), "-c", asking], capture_output=True, text=True, check=True, cwd=folder
    ).stdout.split()


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    made = script("bash", capsys)
    assert complete(made, "fastscreen", "sta") == ["status"]
    assert complete(made, "fastscreen", "cache", "ex") == ["export"]
    assert complete(made, "fastscreen", "status", "--w") == ["--watch"]
    assert set(complete(made, "fastscreen", "completion", "")) == set(SHELLS)


def test_bash_completes_the_commands_for_a_move(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Folders where a folder is wanted, files where a file is."""
    made = script("bash", capsys)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert complete(made, "fastscreen", "import-postfix", "--config-dir", "f", folder=tmp_path) == ["folder"]
    assert sorted(complete(made, "fastscreen", "report", "--html", "f", folder=tmp_path)) == ["file", "folder"]
    assert complete(made, "fastscreen", "allowlist", "ref") == ["refresh"]
    assert complete(made, "fastscreen", "report", "--mail") == ["--mail-to"]


ZSH = """\
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -u -D
finish() {{ zle complete-word; print -r -- "$BUFFER" >> {folder}/lines; zle kill-whole-line }}
zle -N finish; bindkey '^T' finish; : > {folder}/lines
"""


def test_zsh_completes_commands_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In a terminal: its completion works in the line editor only."""
    (tmp_path / "_fastscreen").write_text(script("zsh", capsys))
    (tmp_path / ".zshrc").write_text(ZSH.format(folder=tmp_path))
    found = tmp_path / "lines"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    with subprocess.Popen(
        [needs.program("zsh"), "-d", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        try:
            for number, words in enumerate(("", "sta", "cache ex", "status --wa", "allowlist ref", "import-p"), 0):
                if words:
                    os.write(ours, f"fastscreen {words}\x14".encode())

                def done(number: int = number) -> bool:
                    with contextlib.suppress(BlockingIOError):
                        os.read(ours, 65536)
                    return found.exists() and found.read_text().count("\n") == number

                wait_until(done, f"zsh, at {words!r}")
        finally:
            shell.kill()
            os.close(ours)
    wanted = ["status", "cache export", "status --watch", "allowlist refresh", "import-postfix"]
    assert [line.rstrip() for line in found.read_text().splitlines()] == [f"fastscreen {words}" for words in wanted]


def test_fish_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    asking = [f"complete -C 'fastscreen {words}'" for words in ("sta", "cache ex", "status --w")]
    made = script("fish", capsys) + "\n".join(asking)
    offered = subprocess.run(
        [needs.program("fish"), "-N"], input=made, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split("\t")[0] for line in offered.splitlines()] == ["status", "export", "--watch"]
