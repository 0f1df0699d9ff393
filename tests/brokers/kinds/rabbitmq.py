"""RabbitMQ with an epmd of its own. Topics are durable exchanges, as Dapr's component declares them; `prepare` binds the
queue `audit.TOPIC`, which keeps what came and from which `read` takes nothing away."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from places import Refused
from processes import Process, awake

NAME = "rabbitmq-server"
VARIANTS = ["quorum", "classic"]
ERLANG_BIN = "/usr/lib/erlang/bin"
SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# Quick to start, and quiet beside others: two schedulers, few threads, no busy waiting.
ERLANG = "+S 2:2 +SDcpu 1:1 +SDio 4 +A 4 +sbwt none +sbwtdcpu none +sbwtdio none"
READ_WAIT_S = 60
ERLANG_WAIT_S = 60
MEMORY_BYTES = 1_000_000_000
WRITTEN_PROPERTIES = {"contenttype": "content_type", "messageid": "message_id", "correlationid": "correlation_id", "type": "type"}


def ports(asked: dict, free_port) -> dict:
    chosen = {name: free_port() for name in ("distribution", "epmd", "tls_port")}
    return {"port": asked["port"] or free_port(), **chosen}


def lay(folder: Path, state: dict) -> None:
    lines = [
        f"listeners.tcp.1 = 127.0.0.1:{state['port']}",
        "distribution.listener.interface = 127.0.0.1",
        "log.console = true",
        "log.console.level = info",
        "log.file = false",
        # A machine that is short of memory or disk must not block publishers in the middle of a test.
        f"vm_memory_high_watermark.absolute = {MEMORY_BYTES}",
        "disk_free_limit.absolute = 50MB",
    ]
    if state["auth"]:
        user, _, password = state["auth"].partition(":")
        lines += [f"default_user = {user}", f"default_pass = {password}"]
    if state["max_message_bytes"]:
        lines.append(f"max_message_size = {state['max_message_bytes']}")
    if state["tls"]:
        lines += [
            f"listeners.ssl.1 = 127.0.0.1:{state['tls_port']}",
            f"ssl_options.cacertfile = {state['tls']}/ca.pem",
            f"ssl_options.certfile = {state['tls']}/server.pem",
            f"ssl_options.keyfile = {state['tls']}/server.key",
            f"ssl_options.verify = {'verify_peer' if state['ask_clients'] else 'verify_none'}",
            f"ssl_options.fail_if_no_peer_cert = {'true' if state['ask_clients'] else 'false'}",
            "auth_mechanisms.1 = PLAIN",
            "auth_mechanisms.2 = EXTERNAL",
            # EXTERNAL: the user is the first name the client's certificate is for.
            "ssl_cert_login_from = subject_alternative_name",
            "ssl_cert_login_san_type = dns",
            "ssl_cert_login_san_index = 0",
        ]
    plugins = "rabbitmq_auth_mechanism_ssl" if state["tls"] else ""
    (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
    (folder / "plugins").write_text(f"[{plugins}].\n")


def processes(folder: Path, state: dict) -> list[Process]:
    epmd = {"ERL_EPMD_PORT": str(state["epmd"]), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    server = {
        **epmd,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        # The script then becomes the server, instead of waiting for it.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": f"broker{state['port']}@localhost",
        "RABBITMQ_DIST_PORT": str(state["distribution"]),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "data" / "flags"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ERLANG} -start_epmd false",
    }
    return [Process("epmd", ["epmd"], epmd), Process("rabbitmq", [SCRIPT], server)]


def answers(folder: Path, state: dict, node: int | None) -> bool:
    with socket.create_connection(("127.0.0.1", state["port"]), timeout=5) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        # The method frame Connection.Start: it has booted, and takes logins.
        return connection.recv(1) == b"\x01"


def before_kill(folder: Path, state: dict) -> None:
    """A quorum queue that was declared less than three minutes before a power cut is not found again, with all that it has
    confirmed: RabbitMQ 3.10 writes the queues' names to disk no sooner. What our tests ask is what becomes of messages, so
    the names are written first."""
    # A broker that is frozen, or has ended, has nothing to write.
    if awake(folder, "rabbitmq"):
        _erlang(folder, state, "[dets:sync(T) || T <- dets:all()].")


def describe(state: dict) -> dict:
    address = f"127.0.0.1:{state['port']}"
    return {
        "address": address,
        "url": f"amqp://{state['auth'] or 'guest:guest'}@{address}",
        "tls_address": f"127.0.0.1:{state['tls_port']}" if state["tls"] else None,
    }


def prepare(state: dict, topic: str) -> None:
    with _Channel(state) as channel:
        channel.exchange_declare(topic, "fanout", durable=True)
        channel.queue_declare(f"audit.{topic}", durable=True)
        channel.queue_bind(f"audit.{topic}", topic)


def read(state: dict, topic: str) -> Iterator[tuple[bytes, dict]]:
    from pika.exceptions import ChannelClosedByBroker

    queue = f"audit.{topic}"
    with _Channel(state) as channel:
        try:
            stored = channel.queue_declare(queue, passive=True).method.message_count
        except ChannelClosedByBroker:
            raise Refused(f"nothing audits {topic}: run `broker rabbitmq prepare` first") from None
        found = []
        if stored:
            for _, properties, body in channel.consume(queue, inactivity_timeout=READ_WAIT_S):
                if properties is None:
                    raise Refused(f"{queue} gave {len(found)} of {stored} messages within {READ_WAIT_S} s")
                found.append((body, _metadata(properties)))
                if len(found) == stored:
                    break
        # Back they go, each to its place; and they are there before anybody reads again.
        channel.basic_nack(0, multiple=True, requeue=True)
        channel.cancel()
        channel.queue_declare(queue, passive=True)
    return iter(found)


def write(state: dict, topic: str, messages: list[dict], group: str | None) -> None:
    """Dapr sends no metadata but what the properties take; the queue of a group is named `GROUP-TOPIC`."""
    import pika

    with _Channel(state) as channel:
        channel.exchange_declare(topic, "fanout", durable=True)
        if group:
            channel.queue_declare(f"{group}-{topic}", durable=True)
            channel.queue_bind(f"{group}-{topic}", topic)
        channel.confirm_delivery()
        for message in messages:
            given = {name.lower(): value for name, value in message["metadata"].items()}
            known = {ours: given[theirs] for theirs, ours in WRITTEN_PROPERTIES.items() if theirs in given}
            if "priority" in given:
                known["priority"] = int(given["priority"])
            if "ttlinseconds" in given:
                known["expiration"] = str(int(given["ttlinseconds"]) * 1000)
            properties = pika.BasicProperties(delivery_mode=2, **known)
            channel.basic_publish(topic, given.get("routingkey", ""), message["data"], properties)


def delete_topic(state: dict, topic: str) -> None:
    with _Channel(state) as channel:
        channel.exchange_delete(topic)


def delete_group(state: dict, topic: str, group: str) -> None:
    with _Channel(state) as channel:
        channel.queue_delete(f"{group}-{topic}")


def fill(folder: Path, state: dict, topic: str) -> None:
    """The memory alarm: publishing connections are blocked."""
    _let_have_memory(folder, state, 1_000_000)


def relieve(folder: Path, state: dict, topic: str) -> None:
    _let_have_memory(folder, state, MEMORY_BYTES)


def rotate(folder: Path, state: dict, new: dict) -> None:
    user, _, password = new["auth"].partition(":")
    words = f'rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"{password}">>, <<"kit">>).'
    if b"ok" not in (answer := _erlang(folder, state, words)):
        raise Refused(f"RabbitMQ does not take another password: {answer.decode(errors='replace')}")


def tls(state: dict) -> dict:
    names = {"address": "connectionString", "ca": "caCert", "certificate": "clientCert", "key": "clientKey"}
    return {**names, "url": f"amqps://{state['auth']}@{{host}}:{state['tls_port']}", "more": {}}


def conform_options(variant: str) -> list[str]:
    return ["--max-message-bytes", "4194304", "--auth", "kit:first-secret"]


def profile(state: dict, variant: str) -> dict:
    login = state["auth"] or "guest:guest"
    metadata = {"connectionString": f"amqp://{login}@{{address}}", "queueType": variant}
    limit = {"maxMessageBytes": state["max_message_bytes"]} if state["max_message_bytes"] else {}
    rotates = {"rotates": "connectionString", "secret": login.partition(":")[2]} if state["auth"] else {}
    # A queue holds what came after it was declared.
    return {"type": "pubsub.rabbitmq", "metadata": metadata, "conformance": {**limit, **rotates, "history": False}}


def _let_have_memory(folder: Path, state: dict, count: int) -> None:
    answer = _erlang(folder, state, f"vm_memory_monitor:set_vm_memory_high_watermark({{absolute, {count}}}).")
    if b"ok" not in answer:
        raise Refused(f"RabbitMQ's memory cannot be limited: {answer.decode(errors='replace')}")


def _erlang(folder: Path, state: dict, words: str) -> bytes:
    """What the broker answers to a line of Erlang."""
    call = ["erl_call", "-sname", f"broker{state['port']}@localhost", "-c", (folder / ".erlang.cookie").read_text(), "-e"]
    place = {"ERL_EPMD_PORT": str(state["epmd"]), "HOME": str(folder), "PATH": f"{ERLANG_BIN}:/usr/bin:/bin"}
    made = subprocess.run(call, env=place, input=f"{words}\n".encode(), timeout=ERLANG_WAIT_S, check=False, capture_output=True)
    return made.stdout + made.stderr


def _metadata(properties) -> dict:
    """The headers, and the properties that are set, as the protocol names them."""
    headers = {name: _text(value) for name, value in (properties.headers or {}).items()}
    names = ("content_type", "message_id", "correlation_id", "type", "priority", "expiration", "delivery_mode")
    given = {name: getattr(properties, name) for name in names}
    return {**headers, **{name.replace("_", "-"): str(value) for name, value in given.items() if value is not None}}


def _text(value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class _Channel:
    """A channel of the official client, closed in good order."""

    def __init__(self, state: dict) -> None:
        import pika

        user, _, password = (state["auth"] or "guest:guest").partition(":")
        login = pika.PlainCredentials(user, password)
        self._where = pika.ConnectionParameters("127.0.0.1", state["port"], credentials=login)

    def __enter__(self):
        import pika

        self._connection = pika.BlockingConnection(self._where)
        return self._connection.channel()

    def __exit__(self, *_) -> None:
        if self._connection.is_open:
            self._connection.close()
