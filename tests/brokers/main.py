"""The commands. Absent on purpose: what a kind of broker is, which stands in kinds/, one module each."""

import argparse
import base64
import importlib
import json
import signal
import sys
from pathlib import Path

import lifecycle
import processes
from places import Refused

KINDS = ["redis", "nats", "rabbitmq", "kafka"]


def main() -> None:
    asked = _parser().parse_args()
    try:
        asked.run(asked)
    except Refused as no:
        raise SystemExit(f"broker: {no}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="broker", description="Real brokers for tests, on loopback.")
    commands = parser.add_subparsers(required=True, metavar="install | KIND")
    install = commands.add_parser("install", help="install what is missing")
    install.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; without any: all")
    install.set_defaults(run=_install)
    for kind in KINDS:
        _add_kind(commands, kind)
    return parser


def _add_kind(commands, kind: str) -> None:
    verbs = commands.add_parser(kind).add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run, text: str) -> argparse.ArgumentParser:
        parser = verbs.add_parser(name, help=text)
        parser.add_argument("--folder", type=Path, required=True, help="the broker's own folder")
        parser.set_defaults(run=run, kind=kind)
        return parser

    start = verb("start", _start, "start it, or start it again with its data on its ports; prints where it is")
    start.add_argument("--port", type=int, help="where it listens (default: a free one)")
    start.add_argument("--auth", metavar="USER:PASSWORD", help="let in this user only")
    start.add_argument("--tls", type=Path, metavar="FOLDER", help="speak TLS, with ca.pem, server.pem and server.key")
    start.add_argument("--ask-clients", action="store_true", help="let in only clients that the authority signed")
    start.add_argument("--owner", type=int, metavar="PID", help="end it when this process has ended")
    start.add_argument("--advertise", metavar="HOST:PORT,...", help="kafka: what clients are told, one for each node")
    start.add_argument("--nodes", type=int, default=1, help="kafka: how many (1 or 3)")
    start.add_argument("--partitions", type=int, default=4, help="kafka: partitions of a new topic")
    start.add_argument("--sasl", choices=["plain", "scram"], help="kafka: how the user of --auth proves itself")
    start.add_argument("--no-topics", action="store_true", help="kafka: no topic comes by being named")
    start.add_argument("--stream", action="append", default=[], metavar="NAME=SUBJECT,...", help="nats: make a stream")
    start.add_argument("--max-message-bytes", type=int, help="the broker's own limit (not redis)")
    _node(start)
    for name, gently, text in [("stop", True, "end it in good order"), ("kill", False, "end it at once (SIGKILL)")]:
        _node(verb(name, lambda asked, gently=gently: _end(asked, gently), text))
    for name, number in [("freeze", signal.SIGSTOP), ("thaw", signal.SIGCONT)]:
        _node(verb(name, lambda asked, number=number: _signal(asked, number), f"send {number.name}"))

    verb("prepare", _prepare, "make a topic ready").add_argument("topic")
    verb("read", _read, "print what a topic holds, a JSON line for each message").add_argument("topic")
    write = verb("write", _write, "write JSON lines into a topic, laid out as Dapr's component does")
    write.add_argument("topic")
    write.add_argument("--group", help="a consumer group that is to get them, made first")
    profile = verb("profile", _profile, "print the file that `whimbrel conform --config` takes")
    profile.add_argument("--variant", help="rabbitmq: quorum (default) or classic; kafka: one (default) or three")


def _node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", type=int, help="kafka: only this node, from 1")


def _kind(asked):
    return importlib.import_module(f"kinds.{asked.kind}")


def _install(asked) -> None:
    import install

    unknown = set(asked.kinds) - set(KINDS)
    if unknown:
        raise Refused(f"no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    install.install(asked.kinds or KINDS)


def _start(asked) -> None:
    known = {name: value for name, value in vars(asked).items() if name not in ("run", "folder", "owner", "node")}
    known["tls"] = str(asked.tls.resolve()) if asked.tls else None
    state = lifecycle.start(_kind(asked), asked.folder.resolve(), known, asked.owner, asked.node)
    print(json.dumps({"kind": asked.kind, **state}))


def _names(asked) -> list[str] | None:
    return None if asked.node is None else [f"{asked.kind}-{asked.node}"]


def _end(asked, gently: bool) -> None:
    lifecycle.known(asked.folder)
    with lifecycle.alone(asked.folder):
        processes.end(asked.folder, _names(asked), gently=gently)


def _signal(asked, number: int) -> None:
    lifecycle.known(asked.folder)
    processes.send(asked.folder, _names(asked), number)


def _prepare(asked) -> None:
    _kind(asked).prepare(lifecycle.known(asked.folder), asked.topic)


def _read(asked) -> None:
    for data, metadata in _kind(asked).read(lifecycle.known(asked.folder), asked.topic):
        line = {"data": base64.b64encode(data).decode(), "metadata": metadata}
        sys.stdout.write(json.dumps(line) + "\n")


def _write(asked) -> None:
    messages = [json.loads(line) for line in sys.stdin if line.strip()]
    for message in messages:
        message["data"] = base64.b64decode(message["data"], validate=True)
        message.setdefault("metadata", {})
    _kind(asked).write(lifecycle.known(asked.folder), asked.topic, messages, asked.group)


def _profile(asked) -> None:
    import profile_yaml

    print(profile_yaml.render(_kind(asked), asked.folder.resolve(), asked.variant))


if __name__ == "__main__":
    main()
