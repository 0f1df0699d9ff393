"""Processes in the background: a guard starts them, writes down who they are, and ends them with their owner.

Nothing survives a test: the guard waits for the owner's end and kills what it started; where the guard itself is
killed, the kernel kills what it started (PR_SET_PDEATHSIG). Processes are found by the id and the start time in
`FOLDER/pids`, so that a number used again by somebody else is never signalled.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from places import Refused

STOP_WAIT_S = 30
KILL_WAIT_S = 60
PR_SET_PDEATHSIG = 1


@dataclass
class Process:
    """What to run. Its output goes to `FOLDER/NAME.log`."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


def running(folder: Path) -> dict[str, int]:
    """Name to process id of what runs."""
    found = {}
    for file in sorted((folder / "pids").glob("*")):
        if lives(written := file.read_text()):
            found[file.name] = int(written.split()[0])
    return found


def awake(folder: Path, name: str) -> bool:
    """Whether a process runs, and is not frozen."""
    pid = running(folder).get(name)
    return pid is not None and _fields(pid)[:1] not in (["T"], [])


def identity(pid: int) -> str:
    """Says who a process is, whatever becomes of its number."""
    return f"{pid} {_born(pid)}"


def lives(written: str) -> bool:
    """Whether the process of that identity runs."""
    pid, born = written.split()
    return _born(int(pid)) == born


def launch(folder: Path, wanted: list[Process], owner: int | None, *, throw_away: bool) -> None:
    """Starts what does not run yet. Returns when the programs were executed, not when they are ready. With `throw_away`
    the folder goes when the owner has ended."""
    alive = running(folder)
    missing = [process for process in wanted if process.name not in alive]
    if not missing:
        return
    (folder / "pids").mkdir(exist_ok=True)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.setsid()
        # Twice, so that nobody has to wait for the guard's end.
        if os.fork() == 0:
            _guard(folder, missing, owner, tell, throw_away)
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as answer:
        problem = answer.read()
    if problem:
        raise Refused(problem)


def send(folder: Path, names: list[str] | None, number: int) -> None:
    """Signals what runs, or those of it that are named."""
    for pid in _chosen(folder, names).values():
        os.kill(pid, number)


def end(folder: Path, names: list[str] | None, *, gently: bool) -> None:
    """Ends what runs and returns when it is gone. What does not go in time is killed."""
    chosen = _chosen(folder, names)
    gone = [os.pidfd_open(pid) for pid in chosen.values()]
    for pid in chosen.values():
        # What is frozen hears no SIGTERM.
        for number in (signal.SIGCONT, signal.SIGTERM) if gently else (signal.SIGKILL,):
            os.kill(pid, number)
    late = _wait_all(gone, STOP_WAIT_S if gently else KILL_WAIT_S)
    if late and gently:
        send(folder, names, signal.SIGKILL)
        late = _wait_all(late, KILL_WAIT_S)
    if late:
        raise Refused(f"{', '.join(chosen)} did not end, see {folder}")
    for name in chosen:
        (folder / "pids" / name).unlink(missing_ok=True)


def _chosen(folder: Path, names: list[str] | None) -> dict[str, int]:
    return {name: pid for name, pid in running(folder).items() if names is None or name in names}


def _wait_all(handles: list[int], wait_s: float) -> list[int]:
    """Those that have not ended by then."""
    give_up = time.monotonic() + wait_s
    left = list(handles)
    while left and (rest := give_up - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], rest)
        left = [handle for handle in left if handle not in ended]
    return left


def _born(pid: int) -> str | None:
    """When it started, in the kernel's ticks; None where it has ended, whether or not its parent has noticed."""
    fields = _fields(pid)
    return None if not fields or fields[0] in "ZX" else fields[19]


def _fields(pid: int) -> list[str]:
    """What the kernel says of it, from its state on; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _guard(folder: Path, wanted: list[Process], owner: int | None, tell: int, throw_away: bool) -> None:
    _leave_the_caller(folder, tell)
    children, owned = [], []
    try:
        owned = [os.pidfd_open(owner)] if owner else []
        for process in wanted:
            children.append(_spawn(folder, process))
    except OSError as error:
        os.write(tell, f"cannot start: {error}".encode())
    os.close(tell)
    ends = {os.pidfd_open(child.pid): child for child in children}
    # Where the folder goes with the owner, a broker that was killed is not the end of it.
    while ends or (owned and throw_away):
        ended, _, _ = select.select([*ends, *owned], [], [])
        for handle in set(ended) & ends.keys():
            ends.pop(handle).wait()
        if set(ended) & set(owned):
            for child in ends.values():
                os.killpg(child.pid, signal.SIGKILL)
            owned = []
    if throw_away and not owned:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _leave_the_caller(folder: Path, keep: int) -> None:
    """Whoever reads the caller's output sees its end at once, and no folder of the caller's is held."""
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(folder / "guard.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, target in enumerate([null, log, log]):
        os.dup2(target, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")


def _spawn(folder: Path, process: Process) -> subprocess.Popen:
    # Here, for every other command does without.
    import ctypes

    guard, libc = os.getpid(), ctypes.CDLL(None)

    def die_with_the_guard() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    with open(folder / f"{process.name}.log", "ab") as log:
        child = subprocess.Popen(
            process.argv,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), **process.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_the_guard,
        )
    (folder / "pids" / process.name).write_text(identity(child.pid))
    return child


def log_tail(folder: Path, lines: int = 15) -> str:
    """The last lines that each process wrote."""
    tails = []
    for file in sorted(folder.glob("*.log")):
        last = file.read_text(errors="replace").splitlines()[-lines:]
        tails.append("\n".join([f"--- {file}", *last]))
    return "\n".join(tails) or f"no log in {folder}"


if sys.platform != "linux":
    raise SystemExit("the brokers of the tests need Linux")
