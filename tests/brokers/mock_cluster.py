"""The process behind kinds/mock.py: CONTROL_PORT NODES. The functions are librdkafka's public C API."""

import ctypes
import json
import socket
import sys
from importlib.metadata import files

PRODUCER = 0
TEXT_BYTES = 512
TOPIC_EXISTS = 36
MILLISECONDS_MAX = 600_000
APIS = {
    "produce": 0,
    "fetch": 1,
    "list-offsets": 2,
    "metadata": 3,
    "offset-commit": 8,
    "offset-fetch": 9,
    "find-coordinator": 10,
    "join-group": 11,
    "heartbeat": 12,
    "leave-group": 13,
    "sync-group": 14,
    "init-producer-id": 22,
}
# The mock says that it knows newer ones, and reads them wrongly. These are what librdkafka's own client asks in.
NEWEST = {"join-group": 5, "sync-group": 3, "heartbeat": 3, "leave-group": 1}


class Cluster:
    def __init__(self, nodes: int) -> None:
        found = [file for file in files("confluent-kafka") if file.name.startswith("librdkafka") and ".so" in file.name]
        self._library = ctypes.CDLL(str(found[0].locate()))
        for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._library.rd_kafka_mock_get_requests.restype = ctypes.POINTER(ctypes.c_void_p)
        self._library.rd_kafka_mock_request_api_key.restype = ctypes.c_int16
        problem = ctypes.create_string_buffer(TEXT_BYTES)
        client = self._library.rd_kafka_new(PRODUCER, None, problem, ctypes.c_size_t(TEXT_BYTES))
        if not client:
            raise SystemExit(problem.value.decode())
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), nodes))
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)
        # A group begins with its first member.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, ctypes.c_int32(0))
        for api, newest in NEWEST.items():
            self._call("set_apiversion", ctypes.c_int16(APIS[api]), ctypes.c_int16(0), ctypes.c_int16(newest))

    def do(self, words: list[str]) -> str:
        match words:
            case ["where"]:
                return self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
            case ["topic", topic, partitions]:
                nodes = self.do(["where"]).count(",") + 1
                known = self._call("topic_create", topic.encode(), int(partitions), nodes, fine=(0, TOPIC_EXISTS))
                return "made" if known == 0 else "was there"
            case ["errors", api, *codes] if codes and api in APIS:
                array = (ctypes.c_int * len(codes))(*map(int, codes))
                count = ctypes.c_size_t(len(codes))
                self._library.rd_kafka_mock_push_request_errors_array(
                    self._cluster, ctypes.c_int16(APIS[api]), count, array
                )
            case ["well", api] if api in APIS:
                self._library.rd_kafka_mock_clear_request_errors(self._cluster, ctypes.c_int16(APIS[api]))
            case ["count", api] if api in APIS:
                return str(self._count(APIS[api]))
            case ["topic-error", topic, code]:
                self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), int(code))
            case ["down", node]:
                self._call("broker_set_down", int(node))
            case ["up", node]:
                self._call("broker_set_up", int(node))
            case ["rtt", node, milliseconds]:
                self._call("broker_set_rtt", int(node), min(int(milliseconds), MILLISECONDS_MAX))
            case ["leader", topic, partition, node]:
                self._call("partition_set_leader", topic.encode(), int(partition), int(node))
            case ["coordinator", group, node]:
                self._call("coordinator_set", b"group", group.encode(), int(node))
            case _:
                raise ValueError(f"no such command: {' '.join(words)}; requests are {', '.join(APIS)}")
        return "done"

    def _count(self, api: int) -> int:
        count = ctypes.c_size_t()
        requests = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        apis = [self._library.rd_kafka_mock_request_api_key(ctypes.c_void_p(requests[n])) for n in range(count.value)]
        self._library.rd_kafka_mock_request_destroy_array(requests, count)
        return apis.count(api)

    def _call(self, name: str, *arguments, fine: tuple[int, ...] = (0,)) -> int:
        code = getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *arguments)
        if code not in fine:
            raise ValueError(f"{name} failed with Kafka's error {code}")
        return code


def serve(cluster: Cluster, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                try:
                    answer = {"answer": cluster.do(json.loads(stream.readline()))}
                except ValueError as problem:
                    answer = {"problem": str(problem)}
                stream.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve(Cluster(int(sys.argv[2])), int(sys.argv[1]))
