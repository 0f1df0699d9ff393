"""An app with flask-dapr, its handlers as the extension's documentation writes them."""

import asyncio
import json
import os

import publishing
import told
from flask import Flask, jsonify, request
from flask_dapr import DaprApp

app = Flask("app")
dapr_app = DaprApp(app)


@dapr_app.subscribe(pubsub="bus", topic="orders")
def orders():
    return answer(told.take("orders", request.json, headers()))


@dapr_app.subscribe(pubsub="bus", topic="raw", metadata={"rawPayload": "true"}, route="/as/bytes")
def raw():
    return answer(told.take("raw", request.json, headers()))


@dapr_app.subscribe(pubsub="bus", topic="doomed", dead_letter_topic="dead")
def doomed():
    return answer(told.take("doomed", request.json, headers()))


@dapr_app.subscribe(pubsub="bus", topic="dead", route="/dead-letters")
def dead():
    told.take("dead", request.json, headers())
    return "", 204


@app.post("/sorted/<path>")
def sorted_orders(path: str):
    """Where a declared subscription's rules lead."""
    return answer(told.take(path, request.json, headers()))


@app.post("/publish")
def publish():
    return jsonify(asyncio.run(publishing.publish(request.json)))


def headers() -> dict:
    return {name.lower(): value for name, value in request.headers.items()}


def answer(word: str):
    # The second is what the quickstarts return: JSON without a status, and its type in a header of no meaning.
    return jsonify(status=word) if word else (json.dumps({"success": True}), 200, {"ContentType": "application/json"})


app.run(host="127.0.0.1", port=int(os.environ["APP_PORT"]))
