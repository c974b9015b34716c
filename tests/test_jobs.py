"""One function over many jobs: the same here as in other processes; who is stopped, killed or orphaned ends."""

import operator
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from working import later, refuse

from ritornello.errors import InputError
from ritornello.folder import words_of
from ritornello.jobs import spread

PARENT = """
from ritornello.jobs import spread
from working import nap
if __name__ == "__main__":
    list(spread(nap, [r"{file}"], 2))
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def wait_for(what) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_elsewhere_as_here_and_no_job_is_taken_before_somebody_is_free():
    taken = []

    def jobs():
        for job in range(6):
            taken.append(job)
            yield job

    assert list(spread(operator.neg, range(3))) == [(0, 0), (1, -1), (2, -2)]
    found = []
    for job, result in spread(operator.neg, jobs(), 2):
        found.append((job, result))
        assert len(taken) <= len(found) + 2
    assert sorted(found) == [(job, -job) for job in range(6)]


def test_a_refusal_elsewhere_is_a_refusal_here():
    with pytest.raises(InputError, match="many is too many; use few"):
        list(spread(refuse, ["many"], 2))


def test_a_killed_process_is_told_in_one_line():
    with pytest.raises(InputError, match="killed by signal 9, perhaps for want of memory: fewer --jobs") as caught:
        list(spread(signal.raise_signal, [signal.SIGKILL], 2))
    assert "\n" not in str(caught.value)


def test_workers_end_when_nobody_waits_for_them(tmp_path):
    file = tmp_path / "pid"
    with closing(spread(later, [None, str(file)], 2)) as results:
        next(results)
        wait_for(lambda: file.exists() and file.read_text())
        began = time.monotonic()
    assert not alive(int(file.read_text()))
    assert time.monotonic() - began < 30  # it did not sleep to the end


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT.format(file=tmp_path / "pid"))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    )
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    wait_for(lambda: not alive(worker))


def test_a_number_below_one_is_refused():
    with pytest.raises(InputError, match="--jobs: 0 is less than 1"):
        list(spread(operator.neg, [1], 0))


def test_on_ray_as_here():
    pytest.importorskip("ray", reason="needs the extra ray")
    assert sorted(spread(words_of, ["1k", "2k", "3k"], "ray")) == [("1k", 1000), ("2k", 2000), ("3k", 3000)]
    with pytest.raises(InputError, match="'many' is no count of words"):
        list(spread(words_of, ["many"], "ray"))
