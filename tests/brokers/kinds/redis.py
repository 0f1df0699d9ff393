"""Redis with an append-only file, every write synced. A topic is a stream, which comes by being written to."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

from places import Refused
from processes import Process

NAME = "redis-server"
VARIANTS = ["node"]
PAGE_ENTRIES = 2000
ANSWER_WAIT_S = 5


def ports(asked: dict, free_port) -> dict:
    return {"port": asked["port"] or free_port(), "tls_port": free_port()}


def lay(folder: Path, state: dict) -> None:
    lines = [
        "bind 127.0.0.1",
        f"port {state['port']}",
        f'dir "{folder}/data"',
        'save ""',
        "appendonly yes",
        f"appendfsync {'everysec' if state['unsynced'] else 'always'}",
    ]
    if state["auth"]:
        user, _, password = state["auth"].partition(":")
        lines += ["user default off", f"user {user} on >{password} ~* &* +@all"]
    if state["tls"]:
        lines += [
            f"tls-port {state['tls_port']}",
            f'tls-cert-file "{state["tls"]}/server.pem"',
            f'tls-key-file "{state["tls"]}/server.key"',
            f'tls-ca-cert-file "{state["tls"]}/ca.pem"',
            f"tls-auth-clients {'yes' if state['ask_clients'] else 'no'}",
        ]
    (folder / "redis.conf").write_text("\n".join(lines) + "\n")


def processes(folder: Path, state: dict) -> list[Process]:
    return [Process("redis", ["redis-server", str(folder / "redis.conf")])]


def answers(folder: Path, state: dict, node: int | None) -> bool:
    with socket.create_connection(("127.0.0.1", state["port"]), timeout=ANSWER_WAIT_S) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))


def describe(state: dict) -> dict:
    return {
        "address": f"127.0.0.1:{state['port']}",
        "tls_address": f"127.0.0.1:{state['tls_port']}" if state["tls"] else None,
    }


def prepare(state: dict, topic: str) -> None:
    """Nothing to do."""


def read(state: dict, topic: str) -> Iterator[tuple[bytes, dict]]:
    client, after = _client(state), "-"
    while page := client.xrange(topic, after, "+", PAGE_ENTRIES):
        for identity, fields in page:
            if b"data" not in fields:
                raise Refused(f"entry {identity.decode()} of {topic} has no field `data`")
            metadata = json.loads(fields.get(b"metadata") or b"{}")
            yield fields[b"data"], {name: str(value) for name, value in metadata.items()}
        after = "(" + page[-1][0].decode()


def write(state: dict, topic: str, messages: list[dict], group: str | None) -> None:
    """Two fields for each entry: the bytes, and the metadata as JSON."""
    from redis.exceptions import ResponseError

    client = _client(state)
    if group:
        try:
            client.xgroup_create(topic, group, "0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
    pipeline = client.pipeline(transaction=False)
    for message in messages:
        pipeline.xadd(topic, {"data": message["data"], "metadata": json.dumps(message["metadata"])})
    pipeline.execute()


def delete_topic(state: dict, topic: str) -> None:
    _client(state).delete(topic)


def delete_group(state: dict, topic: str, group: str) -> None:
    _client(state).xgroup_destroy(topic, group)


def fill(folder: Path, state: dict, topic: str) -> None:
    """Every command that needs memory is refused (OOM) from the first byte on."""
    _client(state).config_set("maxmemory", 1)


def relieve(folder: Path, state: dict, topic: str) -> None:
    _client(state).config_set("maxmemory", 0)


def rotate(folder: Path, state: dict, new: dict) -> None:
    user, _, password = new["auth"].partition(":")
    _client(state).acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{password}"])


def tls(state: dict) -> dict:
    names = {"address": "redisHost", "ca": "caCert", "certificate": "clientCert", "key": "clientKey"}
    return {**names, "url": f"{{host}}:{state['tls_port']}", "more": {"enableTLS": "true"}}


def conform_options(variant: str) -> list[str]:
    return ["--auth", "kit:first-secret"]


def profile(state: dict, variant: str) -> dict:
    metadata = {"redisHost": "{address}", "processingTimeout": "2s", "redeliverInterval": "500ms"}
    rotates = {}
    if state["auth"]:
        metadata["redisUsername"], _, metadata["redisPassword"] = state["auth"].partition(":")
        rotates = {"rotates": "redisPassword"}
    # A topic comes by being written to.
    return {"type": "pubsub.redis", "metadata": metadata, "conformance": {"prepare": None, **rotates}}


def _client(state: dict):
    import redis

    user, _, password = (state["auth"] or ":").partition(":")
    return redis.Redis("127.0.0.1", state["port"], username=user or None, password=password or None)
