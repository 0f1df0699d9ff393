"""An app with dapr-ext-fastapi, its handlers as the extension's documentation writes them."""

import os

import publishing
import told
import uvicorn
from dapr.ext.fastapi import DaprApp
from fastapi import Body, FastAPI, Request

app = FastAPI()
dapr_app = DaprApp(app)


@dapr_app.subscribe(pubsub="bus", topic="orders")
def orders(request: Request, event: dict = Body()):
    return answer(told.take("orders", event, dict(request.headers)))


@dapr_app.subscribe(pubsub="bus", topic="raw", metadata={"rawPayload": "true"}, route="/as/bytes")
def raw(request: Request, event: dict = Body()):
    return answer(told.take("raw", event, dict(request.headers)))


@dapr_app.subscribe(pubsub="bus", topic="doomed", dead_letter_topic="dead")
def doomed(request: Request, event: dict = Body()):
    return answer(told.take("doomed", event, dict(request.headers)))


@dapr_app.subscribe(pubsub="bus", topic="dead", route="/dead-letters")
async def dead(request: Request, event: dict = Body()):
    told.take("dead", event, dict(request.headers))


@app.post("/sorted/{path}")
def sorted_orders(path: str, request: Request, event: dict = Body()):
    """Where a declared subscription's rules lead."""
    return answer(told.take(path, event, dict(request.headers)))


@app.post("/publish")
async def publish(command: dict = Body()):
    return await publishing.publish(command)


def answer(word: str):
    return {"status": word} if word else None


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
