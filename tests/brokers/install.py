"""Installs what is missing on this machine, by package name. Called by `broker install`; quick where all is there."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from places import HERE, INSTALLED, KAFKA, ROOT, VENV, Refused

# What each kind takes from Debian: the program that shows that it is there, and the package.
PROGRAMS = {
    "redis": ["redis-server", "openssl"],
    "nats": ["openssl"],
    "rabbitmq": ["/usr/lib/rabbitmq/bin/rabbitmq-server=rabbitmq-server", "openssl"],
    "kafka": ["java=default-jre-headless", "mvn=maven"],
}
POLICY = Path("/usr/sbin/policy-rc.d")


def install(kinds: list[str]) -> None:
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with open(INSTALLED / "install.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        programs = [program for kind in kinds for program in PROGRAMS.get(kind, [])]
        if not _has_venv():
            programs.append(f"{VENV}/bin/python=python3-venv")
        with _no_daemons():
            _run([ROOT / "host" / "artifacts" / "install", *programs])
        _wheels()
        if "kafka" in kinds:
            _jars()


@contextlib.contextmanager
def _no_daemons() -> Iterator[None]:
    """A package must not start a server of its own. What policy the machine has is left as it was."""
    may = os.access(POLICY.parent, os.W_OK) and not POLICY.exists()
    if may:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if may:
            POLICY.unlink(missing_ok=True)


def _has_venv() -> bool:
    if (VENV / "bin" / "python").exists():
        return True
    return subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode == 0


def _wheels() -> None:
    wanted = (HERE / "requirements.txt").read_text()
    stamp = VENV / "requirements.txt"
    if stamp.exists() and stamp.read_text() == wanted and (VENV / "bin" / "python").exists():
        return
    print("   installing the clients of the brokers, and nats-server", flush=True)
    if not (VENV / "bin" / "python").exists():
        shutil.rmtree(VENV, ignore_errors=True)
        _run(["python3", "-m", "venv", VENV])
    _run([VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"])
    stamp.write_text(wanted)


def _jars() -> None:
    wanted = (HERE / "pom.xml").read_text()
    stamp = KAFKA / "pom.xml"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("   installing Apache Kafka", flush=True)
    shutil.rmtree(KAFKA, ignore_errors=True)
    KAFKA.mkdir()
    copy = f"-DoutputDirectory={KAFKA / 'libs'}"
    _run(["mvn", "-B", "-q", "-Dstyle.color=never", "-f", HERE / "pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime", copy])
    import kinds.kafka

    kinds.kafka.format_template(KAFKA)
    stamp.write_text(wanted)


def _run(command: list) -> None:
    words = [str(word) for word in command]
    try:
        if subprocess.run(words).returncode == 0:
            return
    except FileNotFoundError:
        pass
    raise Refused(f"this failed, run it by hand: {' '.join(words)}")
