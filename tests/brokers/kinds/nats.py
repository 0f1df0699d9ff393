"""NATS with JetStream, every write synced. Topics are subjects; `--stream` or `prepare` makes the streams they need."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from places import VENV, Refused
from processes import Process, send

NAME = "nats-server"
VARIANTS = ["stream"]
FETCH_MESSAGES = 500
FETCH_WAIT_S = 60
ROTATE_WAIT_S = 60
ANSWER_WAIT_S = 60


def ports(asked: dict, free_port) -> dict:
    return {"port": asked["port"] or free_port(), "monitor": free_port()}


def lay(folder: Path, state: dict) -> None:
    # A measurement writes more than a test, and no faster than the disk syncs if it must.
    sync, room = ("2m", "64GB") if state["unsynced"] else ("always", "2GB")
    store = f'store_dir: "{folder}/data", sync_interval: {sync}, max_memory_store: 64MB, max_file_store: {room}'
    blocks = [
        f'listen: "127.0.0.1:{state["port"]}"',
        f'http: "127.0.0.1:{state["monitor"]}"',
        f"jetstream {{ {store} }}",
    ]
    if state["max_message_bytes"]:
        blocks.append(f"max_payload: {state['max_message_bytes']}")
    if state["auth"]:
        user, _, password = state["auth"].partition(":")
        blocks.append(f"authorization {{ user: {json.dumps(user)}, password: {json.dumps(password)} }}")
    if state["tls"]:
        files = f'cert_file: "{state["tls"]}/server.pem", key_file: "{state["tls"]}/server.key"'
        asks = f', ca_file: "{state["tls"]}/ca.pem", verify: true' if state["ask_clients"] else ""
        blocks.append(f"tls {{ {files}{asks} }}")
        blocks.append(f"allow_non_tls: {str(state['plain_too']).lower()}")
    (folder / "nats.conf").write_text("\n".join(blocks) + "\n")


def processes(folder: Path, state: dict) -> list[Process]:
    return [Process("nats", [str(VENV / "bin" / "nats-server"), "-c", str(folder / "nats.conf")])]


def answers(folder: Path, state: dict, node: int | None) -> bool:
    with socket.create_connection(("127.0.0.1", state["monitor"]), timeout=1) as connection:
        connection.sendall(b"GET /healthz?js-enabled-only=true HTTP/1.0\r\n\r\n")
        if b" 200 " not in connection.recv(64):
            return False
    made = folder / "streams-made"
    if state["stream"] and not made.exists():
        _run(_with(state, lambda js: _make_all(js, state["stream"])))
        made.touch()
    return True


def describe(state: dict) -> dict:
    address = f"127.0.0.1:{state['port']}"
    return {"address": address, "url": f"nats://{address}", "monitor": f"127.0.0.1:{state['monitor']}"}


def prepare(state: dict, topic: str) -> None:
    _run(_with(state, lambda js: _cover(js, topic)))


def read(state: dict, topic: str) -> Iterator[tuple[bytes, dict]]:
    yield from _run(_with(state, lambda js: _stored(js, topic)))


def write(state: dict, topic: str, messages: list[dict], group: str | None) -> None:
    """Dapr sends no metadata, and the CloudEvent's id as Nats-Msg-Id."""

    async def publish(js) -> None:
        await _cover(js, topic)
        for message in messages:
            await js.publish(topic, message["data"], headers=_message_id(message["data"]))

    _run(_with(state, publish))


def delete_topic(state: dict, topic: str) -> None:
    """The stream that has it goes with all its topics; one that `start` made comes back empty, as its owner would make it."""

    async def delete(js) -> None:
        await js.delete_stream(await js.find_stream_name_by_subject(topic))
        await _make_all(js, state["stream"])

    _run(_with(state, delete))


def delete_group(state: dict, topic: str, group: str) -> None:
    async def delete(js) -> None:
        stream = await js.find_stream_name_by_subject(topic)
        for consumer in await js.consumers_info(stream):
            if consumer.config.filter_subject == topic and consumer.name.startswith(group):
                await js.delete_consumer(stream, consumer.name)

    _run(_with(state, delete))


def fill(folder: Path, state: dict, topic: str) -> None:
    """The stream may hold no more messages than it has, and refuses new ones."""
    _limit(state, topic, "new", lambda held: held)


def relieve(folder: Path, state: dict, topic: str) -> None:
    _limit(state, topic, "old", lambda held: -1)


def rotate(folder: Path, state: dict, new: dict) -> None:
    lay(folder, new)
    send(folder, ["nats"], signal.SIGHUP)
    give_up = time.monotonic() + ROTATE_WAIT_S
    while not _lets_in(new):
        if time.monotonic() > give_up:
            raise Refused(f"nats-server does not take the new password after {ROTATE_WAIT_S} s")


def tls(state: dict) -> dict:
    names = {"address": "natsURL", "ca": "caCert", "certificate": "tls_client_cert", "key": "tls_client_key"}
    return {**names, "url": f"tls://{state['auth']}@{{host}}:{state['port']}", "more": {}}


def conform_options(variant: str) -> list[str]:
    return ["--stream", "conform=*", "--auth", "kit:first-secret", "--plain-too"]


def profile(state: dict, variant: str) -> dict:
    # A stream that covers all subjects makes topics ready before they are named.
    covered = {"prepare": None} if state["stream"] else {}
    login, rotates = "", {}
    if state["auth"]:
        login = f"{state['auth']}@"
        rotates = {"rotates": "natsURL", "secret": state["auth"].partition(":")[2]}
    metadata = {"natsURL": f"nats://{login}{{address}}", "ackWait": "2s"}
    return {"type": "pubsub.jetstream", "metadata": metadata, "conformance": {**covered, **rotates, "dedup": True}}


def _message_id(data: bytes) -> dict | None:
    try:
        identity = json.loads(data)["id"]
    except (ValueError, KeyError, TypeError):
        return None
    return {"Nats-Msg-Id": str(identity)}


def _run(work):
    # Here, for most commands do without.
    import asyncio

    return asyncio.run(work)


async def _with(state: dict, work):
    """Runs some work with a JetStream context of the official client."""
    import nats

    options = {"allow_reconnect": False, "connect_timeout": ANSWER_WAIT_S}
    if state["auth"]:
        options["user"], _, options["password"] = state["auth"].partition(":")
    if state["tls"]:
        options["tls"] = _tls(Path(state["tls"]))
    connection = await nats.connect(f"nats://127.0.0.1:{state['port']}", **options)
    try:
        return await work(connection.jetstream(timeout=ANSWER_WAIT_S))
    finally:
        await connection.close()


def _tls(files: Path):
    import logging
    import ssl

    # It warns of every orderly end of a TLS connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    context = ssl.create_default_context(cafile=files / "ca.pem")
    context.check_hostname = False
    if (files / "client.pem").exists():
        context.load_cert_chain(files / "client.pem", files / "client.key")
    return context


async def _make_all(js, streams: list[str]) -> None:
    for stream in streams:
        name, _, subjects = stream.partition("=")
        await _make(js, name, subjects.split(","))


async def _make(js, name: str, subjects: list[str]) -> None:
    from nats.js.errors import NotFoundError

    try:
        await js.stream_info(name)
    except NotFoundError:
        await js.add_stream(name=name, subjects=subjects, allow_direct=True)


async def _cover(js, topic: str) -> None:
    from nats.js.errors import NotFoundError

    try:
        await js.find_stream_name_by_subject(topic)
    except NotFoundError:
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in topic)
        await _make(js, name, [topic])


def _lets_in(state: dict) -> bool:
    async def ask(js) -> bool:
        return bool(await js.account_info())

    try:
        return _run(_with(state, ask))
    except Exception:
        return False


def _limit(state: dict, topic: str, discard: str, most) -> None:
    from nats.js.api import DiscardPolicy

    async def limit(js) -> None:
        held = await js.stream_info(await js.find_stream_name_by_subject(topic))
        await js.update_stream(held.config, discard=DiscardPolicy(discard), max_msgs=most(held.state.messages))

    _run(_with(state, limit))


async def _stored(js, topic: str) -> list[tuple[bytes, dict]]:
    from nats.js.api import AckPolicy, ConsumerConfig
    from nats.js.errors import NotFoundError

    try:
        stream = await js.find_stream_name_by_subject(topic)
    except NotFoundError:
        raise Refused(f"no stream covers {topic}: run `broker nats prepare`") from None
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=30)
    consumer = await js.pull_subscribe(topic, stream=stream, config=config)
    left, found = (await consumer.consumer_info()).num_pending, []
    while len(found) < left:
        for message in await consumer.fetch(min(FETCH_MESSAGES, left - len(found)), timeout=FETCH_WAIT_S):
            found.append((message.data, dict(message.headers or {})))
    return found
