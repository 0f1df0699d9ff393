// An app with @dapr/dapr over HTTP: DaprServer subscribes, DaprClient publishes. Ports and token come from the
// environment that `dapr run` gives an app, which is where the SDK looks for them.

const { appendFileSync } = require("node:fs");
const { DaprClient, DaprPubSubStatusEnum, DaprServer, HttpMethod } = require("@dapr/dapr");

const server = new DaprServer();
const client = new DaprClient();
const attempts = new Map();

// The SDK hands over the data and the headers, never the event.
const note = (topic) => async (data, headers) => {
  appendFileSync(process.env.SEEN, `${JSON.stringify({ topic, data, headers })}\n`);
};

// Answers with the word of the data's `answers` that is this attempt's; the last one is all further ones'.
const answer = (topic) => async (data, headers) => {
  await note(topic)(data, headers);
  const { key = "", answers = [""] } = Object(data);
  const attempt = (attempts.get(key) ?? 0) + 1;
  attempts.set(key, attempt);
  const word = answers[Math.min(attempt, answers.length) - 1];
  if (word === "RAISE") throw new Error("as the event asked");
  return DaprPubSubStatusEnum[word];
};

// Publishes what the test says, and tells it what the SDK said.
const publish = async ({ pubsub, topic, kind, data, metadata }) => {
  if (kind === "bulk") return client.pubsub.publishBulk(pubsub, topic, data, metadata);
  const payload = kind === "bytes" ? Buffer.from(data, "base64") : data;
  const { error } = await client.pubsub.publish(pubsub, topic, payload, { metadata });
  return { error: error ? JSON.parse(error.message) : null };
};

const main = async () => {
  await server.pubsub.subscribe("bus", "orders", answer("orders"));
  await server.pubsub.subscribe("bus", "raw", answer("raw"), "/as-bytes", { rawPayload: true });
  await server.pubsub.subscribeWithOptions("bus", "doomed", { callback: answer("doomed"), deadLetterTopic: "dead" });
  await server.pubsub.subscribe("bus", "dead", note("dead"));
  const rules = [
    { match: 'event.type == "order.urgent"', path: "urgent" },
    { match: "has(event.data.price) && event.data.price > 100.0", path: "dear" },
  ];
  await server.pubsub.subscribeWithOptions("bus", "sorted", { route: { rules, default: "others" } });
  for (const path of ["urgent", "dear", "others"]) server.pubsub.subscribeToRoute("bus", "sorted", path, note(path));
  const batches = { maxMessagesCount: 3, maxAwaitDurationMs: 100 };
  await server.pubsub.subscribeBulk("bus", "batches", answer("batches"), batches);
  await server.invoker.listen("publish", ({ body }) => publish(JSON.parse(body)), { method: HttpMethod.POST });
  await server.start();
};

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
