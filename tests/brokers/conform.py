"""The file that `whimbrel conform --config` takes, and a run of the kit against a broker of its own. Called by main.py."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import certificates
import lifecycle
import processes
from places import HERE, ROOT, Refused

LEASE = "2s"
# What the kit calls them, the verbs here, and what they are about.
BREAKING = [
    ("deleteTopic", "delete-topic", ["{topic}"]),
    ("deleteGroup", "delete-group", ["{topic}", "{group}"]),
    ("fill", "fill", ["{topic}"]),
    ("relieve", "relieve", ["{topic}"]),
    ("rotate", "rotate", ["{secret}"]),
]


def profile(kind: ModuleType, folder: Path, variant: str) -> str:
    """A Component and a Conformance document for the broker in a folder."""
    state = lifecycle.known(folder)
    known = kind.profile(state, variant)
    address = known.get("address") or kind.describe(state)["address"]
    metadata = {name: value.replace("{address}", address) for name, value in known["metadata"].items()}
    commands = {verb: _command(state, verb, folder) for verb in ("start", "stop", "kill")}
    commands |= {verb: [*_command(state, verb, folder), "{topic}"] for verb in ("read", "prepare")}
    can = [(name, verb, about) for name, verb, about in BREAKING if hasattr(kind, verb.replace("-", "_"))]
    if not state["auth"]:
        can = [one for one in can if one[0] != "rotate"]
    commands |= {name: [*_command(state, verb, folder), *about] for name, verb, about in can}
    tls = {"tls": _tls(kind, state)} if hasattr(kind, "tls") and state["tls"] and state["ask_clients"] else {}
    conformance = {"address": address, **commands, **tls, "lease": LEASE, **known.get("conformance", {})}
    component = [f"    - {{name: {name}, value: {json.dumps(value)}}}" for name, value in metadata.items()]
    return "\n".join([
        *_head("dapr.io/v1alpha1", "Component", state["kind"]),
        f"  type: {known['type']}",
        "  version: v1",
        "  metadata:",
        *component,
        "---",
        *_head("whimbrel.dev/v1alpha1", "Conformance", state["kind"]),
        *(f"  {key}: {json.dumps(value)}" for key, value in conformance.items() if value is not None),
    ])


def run(kind: ModuleType, options: dict, variant: str, component: Path, arguments: list[str]) -> int:
    """Starts a broker, runs `whimbrel conform` with it, ends it."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-conform-") as place:
        folder = Path(place) / "broker"
        if hasattr(kind, "tls"):
            certificates.make(Path(place) / "certificates")
            options |= {"tls": str(Path(place) / "certificates"), "ask_clients": True}
        try:
            lifecycle.start(kind, folder, options, os.getpid(), None)
            config = Path(place) / "conform.yaml"
            config.write_text(profile(kind, folder, variant) + "\n")
            return _conform(component, config, arguments)
        finally:
            processes.end(folder, None, gently=False)


def _conform(component: Path, config: Path, arguments: list[str]) -> int:
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "whimbrel"
    try:
        return subprocess.run([program, "conform", component, "--config", config, *arguments]).returncode
    except FileNotFoundError:
        raise Refused(f"{program} is missing: run `cargo build -p whimbrel`") from None


def _tls(kind: ModuleType, state: dict) -> dict:
    """The settings that are sound, and with each of what breaks them, the setting that an error must name."""
    names, files = kind.tls(state), Path(state["tls"])
    address = (names["address"], names["url"].replace("{host}", "127.0.0.1"))
    elsewhere = (names["address"], names["url"].replace("{host}", "localhost"))
    pem = {names[name]: (files / file).read_text() for name, file in [("ca", "ca.pem"), ("certificate", "client.pem"), ("key", "client.key")]}
    refused = [
        {"metadata": {names["ca"]: (files / "stranger.pem").read_text()}, "names": names["ca"]},
        {"metadata": dict([elsewhere]), "names": names["address"]},
        {"metadata": {names["certificate"]: "", names["key"]: ""}, "names": names["certificate"]},
    ]
    return {"metadata": {**dict([address]), **names["more"], **pem}, "refused": refused}


def _command(state: dict, verb: str, folder: Path) -> list[str]:
    return [str(HERE / "broker"), state["kind"], verb, "--folder", str(folder)]


def _head(version: str, kind: str, name: str) -> list[str]:
    return [f"apiVersion: {version}", f"kind: {kind}", "metadata:", f"  name: {name}", "spec:"]
