"""One broker in one folder: started, ended, started again with its data on its ports. Called by main.py.

`FOLDER/broker.json` keeps what was asked for and which ports were chosen; a second start needs the folder only.
"""

import contextlib
import errno
import fcntl
import json
import random
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import processes
from places import Refused

# Ports are chosen below those that the system gives to outgoing connections: a broker that is down keeps its own.
PORTS = range(11000, 32000)
PORT_TRIES_MAX = 200
STARTS_MAX = 5
ANSWER_WAIT_S = 180
LOOK_AGAIN_AFTER_S = 0.02


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One command at a time in a folder."""
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(kind: ModuleType, folder: Path, asked: dict, owner: int | None, node: int | None) -> dict:
    """Starts what does not run, and returns what is known of it when it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        owner = _owner(folder, owner)
        fresh = not (folder / "broker.json").exists()
        for _ in range(STARTS_MAX):
            state = {**asked, **kind.ports(asked, free_port)} if fresh else known(folder)
            if fresh:
                _lay(kind, folder, state)
            wanted = kind.processes(folder, state)
            missing = [process for process in wanted if node in (None, _number(process))]
            processes.launch(folder, missing, owner, throw_away=state["throw_away"])
            if _answers(kind, folder, state, node):
                return kind.describe(state)
            if fresh:
                # Most likely somebody took a port between the choice and the start: others, and nothing half made.
                processes.end(folder, None, gently=False)
                (folder / "broker.json").unlink()
        raise Refused(f"{kind.NAME} does not start\n{processes.log_tail(folder)}")


def _owner(folder: Path, given: int | None) -> int | None:
    """Whose it is, from start to start. Nothing is started for somebody who has ended."""
    file = folder / "owner"
    if given is not None:
        file.write_text(processes.identity(given))
        return given
    if not file.exists():
        return None
    if not processes.lives(file.read_text()):
        raise Refused(f"whoever {folder} was started for has ended: start it with --owner")
    return int(file.read_text().split()[0])


def known(folder: Path) -> dict:
    """What was written down at the first start."""
    try:
        return json.loads((folder / "broker.json").read_text())
    except FileNotFoundError:
        raise Refused(f"no broker was started in {folder}: run `broker KIND start --folder {folder}`") from None


def know(folder: Path, state: dict) -> None:
    """Writes down what holds from now on."""
    (folder / "broker.json").write_text(json.dumps(state, indent=1))


def free_port() -> int:
    """A port that nobody listens on now."""
    for port in random.sample(PORTS, PORT_TRIES_MAX):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise Refused(f"no free port between {PORTS.start} and {PORTS.stop}")


def _lay(kind: ModuleType, folder: Path, state: dict) -> None:
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    kind.lay(folder, state)
    know(folder, state)


def _number(process: processes.Process) -> int | None:
    name, _, number = process.name.rpartition("-")
    return int(number) if name and number.isdigit() else None


def _answers(kind: ModuleType, folder: Path, state: dict, node: int | None) -> bool:
    """Waits until it answers; False as soon as a process has ended instead."""
    give_up = time.monotonic() + ANSWER_WAIT_S
    wanted = [p.name for p in kind.processes(folder, state) if node in (None, _number(p))]
    while time.monotonic() < give_up:
        if not set(wanted) <= processes.running(folder).keys():
            return False
        with contextlib.suppress(OSError, ValueError):
            if kind.answers(folder, state, node):
                return True
        time.sleep(LOOK_AGAIN_AFTER_S)
    raise Refused(f"{kind.NAME} did not answer within {ANSWER_WAIT_S} s\n{processes.log_tail(folder)}")
