"""What an app was told: a line of JSON for each delivery, and the answer that the event asks for. For both Python apps."""

import base64
import json
import os
from collections import Counter
from threading import Lock

_attempts: Counter[str] = Counter()
_lock = Lock()


def take(topic: str, event: dict, headers: dict) -> str:
    """Writes it down, and says which word of the data's `answers` is this attempt's; the last one is all further ones'."""
    data = event["data"] if "data" in event else base64.b64decode(event["data_base64"]).decode()
    line = json.dumps({"topic": topic, "data": data, "headers": headers, "event": event})
    with _lock:
        with open(os.environ["SEEN"], "a") as seen:
            seen.write(f"{line}\n")
        _attempts[event["id"]] += 1
        attempt = _attempts[event["id"]]
    answers = data.get("answers", [""]) if isinstance(data, dict) else [""]
    word = answers[min(attempt, len(answers)) - 1]
    if word == "RAISE":
        raise ValueError("as the event asked")
    return word
