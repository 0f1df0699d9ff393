"""Publishing over HTTP with the parts of Dapr's SDK for Python that speak it: its HTTP client, serializer and errors.

`DaprClient.publish_event` speaks gRPC only, which is why no test of this folder calls it.
"""

import base64
from urllib.parse import quote

from dapr.clients.exceptions import DaprHttpError
from dapr.clients.http.client import DaprHttpClient
from dapr.clients.http.conf import CONTENT_TYPE_HEADER
from dapr.clients.http.helpers import get_api_url
from dapr.serializers import DefaultJSONSerializer

_serializer = DefaultJSONSerializer()

# How each kind of data goes out, and what it is called.
KINDS = {
    "json": ("application/json", _serializer.serialize),
    "text": ("text/plain", str.encode),
    "bytes": ("application/octet-stream", base64.b64decode),
    "event": ("application/cloudevents+json", _serializer.serialize),
}


async def publish(command: dict) -> dict:
    """Publishes what the test says, and tells it what the SDK said."""
    content_type, serialize = KINDS[command["kind"]]
    client = DaprHttpClient(_serializer)
    try:
        await client.send_bytes(
            "POST",
            f"{get_api_url()}/publish/{command['pubsub']}/{quote(command['topic'], safe='')}",
            serialize(command["data"]),
            headers={CONTENT_TYPE_HEADER: content_type},
            query_params={f"metadata.{key}": value for key, value in command["metadata"].items()},
        )
    except DaprHttpError as error:
        return {"error": error.as_json_safe_dict()}
    return {"error": None}
