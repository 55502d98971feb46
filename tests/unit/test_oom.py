"""The score that the kernel uses when memory runs out."""

from pathlib import Path

import pytest

from fastscreen.process import oom


@pytest.mark.parametrize(
    ("inherited", "own", "child"), [(0, -500, 100), (-900, -1000, 100), (300, -200, 400), (1000, 500, 1000)]
)
def test_values(tmp_path: Path, inherited: int, own: int, child: int) -> None:
    file = tmp_path / "oom_score_adj"
    file.write_text(f"{inherited}\n")
    score = oom.opened(file)
    score.protect()
    assert (score.inherited, score.own, score.child) == (inherited, own, child)


def test_a_fork_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's value at the fork, the supervisor's afterwards, whatever happened."""
    written: list[int] = []
    score = oom.OomScore(0, 1, own=-500)

    def write(value: int) -> bool:
        written.append(value)
        return True

    monkeypatch.setattr(score, "_write", write)
    with pytest.raises(BlockingIOError), score.for_fork():
        assert written == [100]
        raise BlockingIOError
    assert written == [100, -500]


def test_without_proc(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        score = oom.opened(path)
        score.protect()
        with score.for_fork():
            pass
        assert score.own == 0
    (tmp_path / "odd").write_text("x")
    assert oom.opened(tmp_path / "odd").fd == -1
