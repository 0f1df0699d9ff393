"""librdkafka's mock Kafka cluster: in memory, on ports that it chooses, for faults that no real broker has on request.

`broker mock tell --folder F WORDS`, with the errors' numbers as in Kafka's protocol:

    errors API CODE...             the next requests of this kind are answered with these errors, at any node; -195: it hangs up
    well API                       what is left of those errors is dropped
    count API                      how many requests of this kind there have been
    topic-error TOPIC CODE         whatever is asked about a topic is answered with this error; 0: no more
    down NODE | up NODE            a node refuses connections, or takes them again
    rtt NODE MILLISECONDS          a node answers so much later
    leader TOPIC PARTITION NODE    a partition moves
    coordinator GROUP NODE         a group moves
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

from kinds import kafka
from places import HERE, VENV, Refused
from processes import Process

NAME = "the mock Kafka"
VARIANTS = ["mock"]
ANSWER_WAIT_S = 10


def ports(asked: dict, free_port) -> dict:
    return {"control": free_port()}


def lay(folder: Path, state: dict) -> None:
    """It keeps nothing."""


def processes(folder: Path, state: dict) -> list[Process]:
    words = [str(state["control"]), str(state["nodes"])]
    return [Process("mock", [str(VENV / "bin" / "python"), str(HERE / "mock_cluster.py"), *words])]


def answers(folder: Path, state: dict, node: int | None) -> bool:
    return bool(tell(state, ["where"]))


def describe(state: dict) -> dict:
    addresses = tell(state, ["where"]).split(",")
    return {"address": addresses[0], "addresses": addresses}


def prepare(state: dict, topic: str) -> None:
    tell(state, ["topic", topic, str(state["partitions"])])


def read(state: dict, topic: str) -> Iterator[tuple[bytes, dict]]:
    yield from kafka.read(_as_kafka(state), topic)


def write(state: dict, topic: str, messages: list[dict], group: str | None) -> None:
    kafka.write(_as_kafka(state), topic, messages, group)


def conform_options(variant: str) -> list[str]:
    return []


def profile(state: dict, variant: str) -> dict:
    raise Refused("a mock proves nothing about what is kept: take kafka")


def tell(state: dict, words: list[str]) -> str:
    """One command, and what it answers."""
    with socket.create_connection(("127.0.0.1", state["control"]), timeout=ANSWER_WAIT_S) as connection:
        connection.sendall(json.dumps(words).encode() + b"\n")
        answer = json.loads(connection.makefile().readline())
    if "problem" in answer:
        raise Refused(answer["problem"])
    return answer["answer"]


def _as_kafka(state: dict) -> dict:
    return {**state, "internal": [int(one.rpartition(":")[2]) for one in tell(state, ["where"]).split(",")]}
