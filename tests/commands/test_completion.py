"""fastscreen completion, in a real shell where there is one."""

import subprocess

import pytest
from peers import needs

from fastscreen.cli import COMMANDS, main
from fastscreen.cli.completion import SHELLS


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = script(shell, capsys)
    for command in COMMANDS:
        assert command.__name__.rpartition(".")[2].replace("_", "-") in made
    assert "--watch" in made or "-l watch" in made


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = script(shell, capsys)
    subprocess.run([needs.program(shell), "-n"], input=made, text=True, check=True)


def complete(made: str, *words: str) -> list[str]:
    """What bash offers behind these words."""
    line = " ".join(f"'{word}'" for word in words)
    asking = f"""
{made}
COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
eval "$(complete -p fastscreen | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(
        [needs.program("bash"), "-c", asking], capture_output=True, text=True, check=True
    ).stdout.split()


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    made = script("bash", capsys)
    assert complete(made, "fastscreen", "sta") == ["status"]
    assert complete(made, "fastscreen", "cache", "ex") == ["export"]
    assert complete(made, "fastscreen", "status", "--w") == ["--watch"]
    assert set(complete(made, "fastscreen", "completion", "")) == set(SHELLS)


def test_fish_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    asking = [f"complete -C 'fastscreen {words}'" for words in ("sta", "cache ex", "status --w")]
    made = script("fish", capsys) + "\n".join(asking)
    offered = subprocess.run(
        [needs.program("fish"), "-N"], input=made, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split("\t")[0] for line in offered.splitlines()] == ["status", "export", "--watch"]
