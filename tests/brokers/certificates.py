"""Certificates for one run of the kit, made by OpenSSL. Called by conform.py."""

import subprocess
from pathlib import Path

from places import Refused

CONFIG = """[req]
distinguished_name = nobody
[nobody]
[authority]
basicConstraints = critical, CA:TRUE
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
[client]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:kit
"""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


def make(folder: Path) -> None:
    """NAME.pem and NAME.key of an authority (`ca`), of the server and the client that it knows, and of a stranger."""
    folder.mkdir()
    (folder / "openssl.cnf").write_text(CONFIG)
    _make(folder, "ca", "authority")
    _make(folder, "stranger", "authority")
    for name in ("server", "client"):
        _make(folder, name, name, "-CA", "ca.pem", "-CAkey", "ca.key")


def _make(folder: Path, name: str, kind: str, *signed: str) -> None:
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    command = ["openssl", "req", "-config", "openssl.cnf", "-x509", *KEY, "-extensions", kind, "-subj", f"/CN={name}", *files, *signed]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if made.returncode != 0:
        raise Refused(f"openssl makes no certificate: {made.stderr}")
