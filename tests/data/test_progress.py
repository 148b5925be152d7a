import sys

from data import progress as module
from data.progress import progress


def test_log_gets_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 0.5, 1.5, 1.5, 5.0, 12.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("reading x.csv", 4000, "B") as reached:
        for done in (500, 1000, 2000, 3000):  # after 0.5, 1.5, 5 and 12 seconds
            reached(done)
    shown = capsys.readouterr().err
    assert shown == "reading x.csv: 1.00kB (25%)\nreading x.csv: 3.00kB (75%)\n"
    clock = iter([0.0, 1.5, 1.5])
    with progress("choosing", None, " settings tried") as reached:
        reached(12)
    assert capsys.readouterr().err == "choosing: 12 settings tried\n"
    clock = iter([0.0, 59.0, 60.0, 60.0, 119.0, 120.0, 120.0])
    with progress("training", 200, " steps", 100, first=60.0, every=60.0) as reached:
        for step in range(101, 105):
            reached(step, f"loss {step / 100}")
    assert capsys.readouterr().err == "training: 102 steps (51%), loss 1.02\ntraining: 104 steps (52%), loss 1.04\n"


def test_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(module, "QUIET", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("fetching x.zip", 10, "B", done=5) as reached:
        reached(10)
        assert "fetching x.zip" in capsys.readouterr().err
        reached(10, "checking")
        assert "checking" in capsys.readouterr().err


def test_short_work_is_silent(capsys, monkeypatch):
    with progress("a", 2, "B") as reached:
        reached(1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("a", 2, "B") as reached:
        reached(1)
    assert not capsys.readouterr().err.strip("\r\n ")
