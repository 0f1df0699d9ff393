"""Apache Kafka without ZooKeeper, one node or three, each a broker and a controller in one small JVM.

It cannot be had full: a full disk ends the broker, and no setting has it refuse for a while what it would take. Nobody may
take away a group that is in use.

Every node has a second listener for the tests' own commands, so that a proxy, a login or TLS between the adapter and the
broker is never between them and the broker; and with `--plain-too` a third one, which alone speaks TLS.
"""

import json
import shutil
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from places import KAFKA, Refused
from processes import Process

NAME = "Kafka"
VARIANTS = ["one", "three"]
CLUSTER = "d2hpbWJyZWwtYnJva2Vycw"
JVM = ["-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
JVM += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
REQUEST_WAIT_S = 60
LOOK_WAIT_S = 10
SCRAM_ITERATIONS = 4096
METADATA = 3
OFFSET_BEGINNING = -2


def ports(asked: dict, free_port) -> dict:
    def some() -> list[int]:
        return [free_port() for _ in range(asked["nodes"])]

    clients = some()
    if asked["port"]:
        clients[0] = asked["port"]
    chosen = {"clients": clients, "internal": some(), "controllers": some(), "tls_clients": some()}
    if asked["advertise"] == "free":
        chosen["advertise"] = ",".join(f"127.0.0.1:{port}" for port in some())
    return chosen


def lay(folder: Path, state: dict) -> None:
    for node in _nodes(state):
        data = folder / "data" / str(node)
        shutil.copytree(KAFKA / "formatted", data)
        directory = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        lines = ["version=1", f"cluster.id={CLUSTER}", f"node.id={node}", f"directory.id={directory}"]
        (data / "meta.properties").write_text("\n".join(lines) + "\n")
        settings = {**_settings(folder, state, node), **_access(folder, state)}
        _write_properties(folder / f"server-{node}.properties", settings)


def processes(folder: Path, state: dict) -> list[Process]:
    return [Process(f"kafka-{node}", _java("kafka.Kafka", folder / f"server-{node}.properties")) for node in _nodes(state)]


def answers(folder: Path, state: dict, node: int | None) -> bool:
    asked = list(_nodes(state)) if node is None else [node]
    if any(_brokers_seen_by(state["internal"][one - 1]) < len(asked) for one in asked):
        return False
    made = folder / "user-made"
    if state["sasl"] == "scram" and not made.exists():
        _make_user(state)
        made.touch()
    return True


def describe(state: dict) -> dict:
    addresses = [f"127.0.0.1:{port}" for port in state["clients"]]
    secure = f"127.0.0.1:{state['tls_clients'][0]}" if _has_both(state) else None
    return {"address": addresses[0], "addresses": addresses, "internal": _bootstrap(state), "tls_address": secure}


def prepare(state: dict, topic: str) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    new = NewTopic(topic, num_partitions=state["partitions"], replication_factor=state["nodes"])
    admin = AdminClient({"bootstrap.servers": _bootstrap(state)})
    try:
        admin.create_topics([new], request_timeout=REQUEST_WAIT_S)[topic].result(REQUEST_WAIT_S)
    except KafkaException as refused:
        if refused.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise Refused(f"cannot create {topic}: {refused}") from None


def read(state: dict, topic: str) -> Iterator[tuple[bytes, dict]]:
    from confluent_kafka import Consumer, TopicPartition

    # The group is never joined; the client wants a name.
    settings = {"group.id": "read", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 10}
    consumer = Consumer({"bootstrap.servers": _bootstrap(state), **settings})
    found = consumer.list_topics(topic, REQUEST_WAIT_S).topics[topic]
    if found.error:
        raise Refused(f"cannot read {topic}: {found.error}; `broker kafka prepare` makes a topic")
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in found.partitions])
    yield from _to_the_ends(consumer, set(found.partitions))
    consumer.close()


def write(state: dict, topic: str, messages: list[dict], group: str | None) -> None:
    """Dapr makes a header of every metadata entry, and the record's key of `partitionKey` or `__key`."""
    from confluent_kafka import Producer

    producer, refused = Producer({"bootstrap.servers": _bootstrap(state), "acks": "all"}), []
    for message in messages:
        metadata = message["metadata"]
        key = message.get("key") or metadata.get("partitionKey") or metadata.get("__key")
        producer.produce(
            topic,
            message["data"],
            key,
            headers=list(metadata.items()),
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        producer.poll(0)
    if producer.flush(REQUEST_WAIT_S) or refused:
        raise Refused(f"not every message was confirmed: {refused}")


def delete_topic(state: dict, topic: str) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": _bootstrap(state)})
    admin.delete_topics([topic], request_timeout=REQUEST_WAIT_S)[topic].result(REQUEST_WAIT_S)


def rotate(folder: Path, state: dict, new: dict) -> None:
    if state["sasl"] != "scram":
        raise Refused("a password is changed behind a running broker with --sasl scram only")
    _make_user(new)


def tls(state: dict) -> dict:
    names = {"address": "brokers", "ca": "caCert", "certificate": "clientCert", "key": "clientKey"}
    return {**names, "url": f"{{host}}:{state['tls_clients'][0]}", "more": {"disableTls": "false"}}


def conform_options(variant: str) -> list[str]:
    """Each node tells its clients the address of a proxy, which the kit puts there."""
    login = ["--auth", "kit:first-secret", "--sasl", "scram", "--plain-too"]
    return [*(["--nodes", "3"] if variant == "three" else []), "--advertise", "free", *login]


def profile(state: dict, variant: str) -> dict:
    told = {"proxyListen": state["advertise"]} if state["advertise"] else {}
    rotates = {"rotates": "saslPassword"} if state["auth"] else {}
    metadata = {"brokers": "{address}", **_login(state), "initialOffset": "oldest"}
    return {
        "type": "pubsub.kafka",
        "address": ",".join(f"127.0.0.1:{port}" for port in state["clients"]),
        "metadata": {**metadata, "sessionTimeout": "3s", "heartbeatInterval": "500ms"},
        "conformance": {"lease": "3s", **told, **rotates},
    }


def _login(state: dict) -> dict:
    if not state["auth"]:
        return {"authType": "none"}
    user, _, password = state["auth"].partition(":")
    shown = "SHA-512" if state["sasl"] == "scram" else "PLAINTEXT"
    known = {"saslUsername": user, "saslPassword": password, "saslMechanism": shown}
    return {"authType": "password", **known, "disableTls": "true"}


def format_template(folder: Path) -> None:
    """What every data folder begins with: made once, for it takes a JVM."""
    settings = folder / "template.properties"
    template = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": "1@127.0.0.1:1",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1",
        "log.dirs": folder / "formatted",
    }
    _write_properties(settings, template)
    command = [*_java("kafka.tools.StorageTool", "format"), "-t", CLUSTER, "-c", str(settings)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise Refused(f"Kafka's storage tool failed: {made.stderr or made.stdout}")


def _has_both(state: dict) -> bool:
    """Whether TLS has a listener of its own."""
    return bool(state["tls"] and state["plain_too"])


def _durable(state: dict) -> int:
    """On so many nodes a message stands when it is confirmed."""
    return min(2, state["nodes"])


def _nodes(state: dict) -> range:
    return range(1, state["nodes"] + 1)


def _java(main: str, *arguments) -> list[str]:
    return ["java", *JVM, "-cp", f"{KAFKA}/libs/*", main, *map(str, arguments)]


def _bootstrap(state: dict) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in state["internal"])


def _settings(folder: Path, state: dict, node: int) -> dict:
    own = node - 1
    advertised = (state["advertise"] or ",".join(f"127.0.0.1:{port}" for port in state["clients"])).split(",")
    clients, internal, controllers = (state[name] for name in ("clients", "internal", "controllers"))
    copies = state["nodes"]
    durable = _durable(state)
    secure = f",TLS://127.0.0.1:{state['tls_clients'][own]}" if _has_both(state) else ""
    settings = {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{controllers[n - 1]}" for n in _nodes(state)),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENTS://127.0.0.1:{clients[own]},INTERNAL://127.0.0.1:{internal[own]},CONTROLLER://127.0.0.1:{controllers[own]}{secure}",
        "advertised.listeners": f"CLIENTS://{advertised[own]},INTERNAL://127.0.0.1:{internal[own]}{secure}",
        "inter.broker.listener.name": "INTERNAL",
        "log.dirs": folder / "data" / str(node),
        # What is confirmed stands in the system's page cache at least, which outlives a killed process.
        "default.replication.factor": copies,
        "min.insync.replicas": durable,
        "unclean.leader.election.enable": "false",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": durable,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": durable,
        "auto.create.topics.enable": "false" if state["no_topics"] else "true",
        "num.partitions": state["partitions"],
    }
    if state["max_message_bytes"]:
        settings["message.max.bytes"] = state["max_message_bytes"]
    return {**settings, **_quick()}


def _quick() -> dict:
    """Few threads, few partitions of its own, and groups and nodes that are missed within a second or two."""
    return {
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
        "broker.session.timeout.ms": 1000,
        "controller.quorum.election.timeout.ms": 500,
        "controller.quorum.fetch.timeout.ms": 1000,
        "controller.quorum.election.backoff.max.ms": 200,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.enable": "false",
    }


def _access(folder: Path, state: dict) -> dict:
    prefix = "SASL_" if state["auth"] else ""
    encrypted = bool(state["tls"]) and not state["plain_too"]
    protocols = {"CLIENTS": prefix + ("SSL" if encrypted else "PLAINTEXT"), "TLS": prefix + "SSL"}
    protocols |= {"INTERNAL": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    settings = {"listener.security.protocol.map": ",".join(map(":".join, protocols.items()))}
    for name in ("clients", "tls") if _has_both(state) else ("clients",):
        settings |= _sasl(state, f"listener.name.{name}.")
    if state["acls"]:
        # Whoever comes without a name is a broker, or one of our own commands.
        authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        settings |= {"authorizer.class.name": authorizer, "super.users": "User:ANONYMOUS"}
    if state["tls"]:
        settings |= _certificates(folder, state, f"listener.name.{'tls' if _has_both(state) else 'clients'}.")
    return settings


def _sasl(state: dict, own: str) -> dict:
    if not state["auth"]:
        return {}
    module = "org.apache.kafka.common.security"
    if state["sasl"] == "scram":
        login = f"{module}.scram.ScramLoginModule required;"
        enabled = {f"{own}sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512"}
        return enabled | {f"{own}scram-sha-{bits}.sasl.jaas.config": login for bits in (256, 512)}
    user, _, password = state["auth"].partition(":")
    login = f"{module}.plain.PlainLoginModule required user_{user}={json.dumps(password)};"
    return {f"{own}sasl.enabled.mechanisms": "PLAIN", f"{own}plain.sasl.jaas.config": login}


def _certificates(folder: Path, state: dict, own: str) -> dict:
    files, identity = Path(state["tls"]), folder / "server.pem"
    identity.write_text((files / "server.key").read_text() + (files / "server.pem").read_text())
    return {
        f"{own}ssl.keystore.type": "PEM",
        f"{own}ssl.keystore.location": identity,
        f"{own}ssl.truststore.type": "PEM",
        f"{own}ssl.truststore.location": files / "ca.pem",
        f"{own}ssl.client.auth": "required" if state["ask_clients"] else "none",
    }


def _write_properties(file: Path, settings: dict) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def _brokers_seen_by(port: int) -> int:
    """How many brokers are in order, as this one has been told."""
    request = struct.pack(">hhihi", METADATA, 0, 1, -1, 0)
    with socket.create_connection(("127.0.0.1", port), timeout=LOOK_WAIT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(12, socket.MSG_WAITALL)
    return struct.unpack(">iii", answer)[2] if len(answer) == 12 else 0


def _make_user(state: dict) -> None:
    from confluent_kafka import admin

    user, _, password = state["auth"].partition(":")
    client = admin.AdminClient({"bootstrap.servers": _bootstrap(state)})
    # One request for each: the broker takes a user once in a request.
    for mechanism in (admin.ScramMechanism.SCRAM_SHA_256, admin.ScramMechanism.SCRAM_SHA_512):
        info = admin.ScramCredentialInfo(mechanism, SCRAM_ITERATIONS)
        wanted = admin.UserScramCredentialUpsertion(user, info, password.encode())
        client.alter_user_scram_credentials([wanted])[user].result(REQUEST_WAIT_S)


def _to_the_ends(consumer, unread: set[int]) -> Iterator[tuple[bytes, dict]]:
    """What these partitions hold, each in its order."""
    from confluent_kafka import KafkaError

    while unread and (message := consumer.poll(REQUEST_WAIT_S)) is not None:
        if not message.error():
            yield message.value() or b"", _metadata(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unread.discard(message.partition())
        else:
            raise Refused(f"reading failed: {message.error()}")
    if unread:
        raise Refused(f"partitions {unread} said nothing for {REQUEST_WAIT_S} s")


def _metadata(message) -> dict:
    metadata = {name: (value or b"").decode(errors="replace") for name, value in message.headers() or []}
    if message.key() is not None:
        metadata["__key"] = message.key().decode(errors="replace")
    return {**metadata, "__partition": str(message.partition()), "__offset": str(message.offset())}
