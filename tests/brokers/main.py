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

KINDS = ["redis", "nats", "rabbitmq", "kafka", "mock"]
USAGE = f"""usage: broker install [KIND...]     install what is missing
       broker KIND VERB ...         start, end, read a broker: broker KIND --help

KIND is one of {", ".join(KINDS)}. Everything listens on loopback and keeps its data in a folder of its own."""


def main(words: list[str]) -> None:
    try:
        match words:
            case ["install", *kinds] if set(kinds) <= set(KINDS):
                import install

                install.install(kinds or KINDS)
            case [kind, *rest] if kind in KINDS:
                asked = parser(kind).parse_args(rest)
                asked.run(asked)
            case _:
                raise SystemExit(USAGE)
    except Refused as no:
        raise SystemExit(f"broker: {no}") from None


def parser(kind: str) -> argparse.ArgumentParser:
    """Of one kind's commands."""
    whole = argparse.ArgumentParser(prog=f"broker {kind}", description=_module(kind).__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = whole.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text)
        added.add_argument("--folder", type=Path, required=True, help="the broker's own folder")
        added.set_defaults(run=run, kind=kind)
        return added

    _add_start(verb("start", _start, "start it, or start it again with its data on its ports; prints where it is"))
    for name, gently, text in [("stop", True, "end it in good order"), ("kill", False, "end it at once (SIGKILL)")]:
        _add_node(verb(name, lambda asked, gently=gently: _end(asked, gently), text))
    for name, number in [("freeze", signal.SIGSTOP), ("thaw", signal.SIGCONT)]:
        _add_node(verb(name, lambda asked, number=number: _signal(asked, number), f"send {number.name}"))
    verb("prepare", _prepare, "make a topic ready").add_argument("topic")
    verb("read", _read, "print what a topic holds, a JSON line for each message").add_argument("topic")
    write = verb("write", _write, "write JSON lines into a topic, laid out as Dapr's component does")
    write.add_argument("topic")
    write.add_argument("--group", help="a consumer group that is to get them, made first")
    _add_breaking(verb, _module(kind))
    if hasattr(_module(kind), "tell"):
        verb("tell", _tell, "ask for a fault, as above").add_argument("words", nargs="+")
    _add_conform(verbs, verb, kind)
    return whole


def _add_breaking(verb, module) -> None:
    if hasattr(module, "delete_topic"):
        verb("delete-topic", _delete_topic, "take a topic away with all that is in it").add_argument("topic")
    if hasattr(module, "delete_group"):
        deleted = verb("delete-group", _delete_group, "take away what the broker keeps of a group")
        deleted.add_argument("topic")
        deleted.add_argument("group")
    if hasattr(module, "fill"):
        verb("fill", _fill, "have it store nothing more, of this topic at least").add_argument("topic")
        verb("relieve", _relieve, "have it store again").add_argument("topic")
    if hasattr(module, "rotate"):
        verb("rotate", _rotate, "take this password in place of that of --auth").add_argument("password")


def _add_start(start: argparse.ArgumentParser) -> None:
    start.add_argument("--port", type=int, help="where it listens (default: a free one)")
    start.add_argument("--auth", metavar="USER:PASSWORD", help="let in this user only")
    start.add_argument("--tls", type=Path, metavar="FOLDER", help="speak TLS, with ca.pem, server.pem and server.key")
    start.add_argument("--plain-too", action="store_true", help="nats: with --tls, speak without as well")
    start.add_argument("--ask-clients", action="store_true", help="let in only clients that the authority signed")
    start.add_argument("--owner", type=int, metavar="PID", help="end it when this process has ended")
    start.add_argument("--unsynced", action="store_true", help="sync the disk as its defaults say: for measurements")
    start.add_argument("--throw-away", action="store_true", help="and its folder goes with its owner, too")
    start.add_argument("--max-message-bytes", type=int, help="the broker's own limit (not redis)")
    start.add_argument("--stream", action="append", default=[], metavar="NAME=SUBJECT,...", help="nats: make a stream")
    told = "kafka: what clients are told, one for each node; `free`: ports that a proxy can have"
    start.add_argument("--advertise", metavar="HOST:PORT,...", help=told)
    start.add_argument("--nodes", type=int, choices=[1, 3], default=1, help="kafka: how many")
    start.add_argument("--partitions", type=int, default=4, help="kafka: partitions of a new topic")
    start.add_argument("--sasl", choices=["plain", "scram"], help="kafka: how the user of --auth proves itself")
    start.add_argument("--acls", action="store_true", help="kafka: with --sasl, a user may do what an ACL grants, and no more")
    start.add_argument("--no-topics", action="store_true", help="kafka: no topic comes by being named")
    _add_node(start)


def _add_node(added: argparse.ArgumentParser) -> None:
    added.add_argument("--node", type=int, help="kafka: only this node, from 1")


def _add_conform(verbs, verb, kind: str) -> None:
    conform = verbs.add_parser("conform", help="run `whimbrel conform` against a broker of its own")
    conform.set_defaults(run=_conform, kind=kind)
    variants = _module(kind).VARIANTS
    for added in (verb("profile", _profile, "print the file that `whimbrel conform --config` takes"), conform):
        added.add_argument("--variant", choices=variants, default=variants[0], help="default: %(default)s")
    conform.add_argument("component", type=Path, metavar="FILE.wasm")
    conform.add_argument("arguments", nargs=argparse.REMAINDER, help="for `whimbrel conform`")


def _module(kind: str):
    return importlib.import_module(f"kinds.{kind}")


def start_options(kind: str, words: list[str]) -> dict:
    """What `broker KIND start` with these words asks for."""
    return _options(parser(kind).parse_args(["start", "--folder", ".", *words]))


def _options(asked) -> dict:
    options = {name: value for name, value in vars(asked).items() if name not in ("run", "folder", "owner", "node")}
    return {**options, "tls": str(asked.tls.resolve()) if asked.tls else None}


def _start(asked) -> None:
    known = lifecycle.start(_module(asked.kind), asked.folder.resolve(), _options(asked), asked.owner, asked.node)
    print(json.dumps({"kind": asked.kind, **known}))


def _names(asked) -> list[str] | None:
    return None if asked.node is None else [f"{asked.kind}-{asked.node}"]


def _end(asked, gently: bool) -> None:
    state = lifecycle.known(asked.folder)
    with lifecycle.alone(asked.folder):
        if not gently and hasattr(_module(asked.kind), "before_kill"):
            _module(asked.kind).before_kill(asked.folder, state)
        processes.end(asked.folder, _names(asked), gently=gently)


def _signal(asked, number: int) -> None:
    lifecycle.known(asked.folder)
    processes.send(asked.folder, _names(asked), number)


def _prepare(asked) -> None:
    _module(asked.kind).prepare(lifecycle.known(asked.folder), asked.topic)


def _read(asked) -> None:
    for data, metadata in _module(asked.kind).read(lifecycle.known(asked.folder), asked.topic):
        line = {"data": base64.b64encode(data).decode(), "metadata": metadata}
        sys.stdout.write(json.dumps(line) + "\n")


def _write(asked) -> None:
    messages = [json.loads(line) for line in sys.stdin if line.strip()]
    for message in messages:
        message["data"] = base64.b64decode(message["data"], validate=True)
        message.setdefault("metadata", {})
    _module(asked.kind).write(lifecycle.known(asked.folder), asked.topic, messages, asked.group)


def _delete_topic(asked) -> None:
    _module(asked.kind).delete_topic(lifecycle.known(asked.folder), asked.topic)


def _delete_group(asked) -> None:
    _module(asked.kind).delete_group(lifecycle.known(asked.folder), asked.topic, asked.group)


def _fill(asked) -> None:
    _module(asked.kind).fill(asked.folder, lifecycle.known(asked.folder), asked.topic)


def _relieve(asked) -> None:
    _module(asked.kind).relieve(asked.folder, lifecycle.known(asked.folder), asked.topic)


def _rotate(asked) -> None:
    state = lifecycle.known(asked.folder)
    if not state["auth"]:
        raise Refused("it lets in everybody: start it with --auth")
    user = state["auth"].partition(":")[0]
    new = {**state, "auth": f"{user}:{asked.password}"}
    _module(asked.kind).rotate(asked.folder, state, new)
    lifecycle.know(asked.folder, new)


def _tell(asked) -> None:
    print(_module(asked.kind).tell(lifecycle.known(asked.folder), asked.words))


def _profile(asked) -> None:
    import conform

    print(conform.profile(_module(asked.kind), asked.folder.resolve(), asked.variant))


def _conform(asked) -> None:
    import conform

    options = start_options(asked.kind, _module(asked.kind).conform_options(asked.variant))
    raise SystemExit(conform.run(_module(asked.kind), options, asked.variant, asked.component, asked.arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
