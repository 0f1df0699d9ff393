"""The second subscriber: an ordinary HTTP app. Prints each enriched order; ends when all have come or time is up.

usage: app.py PORT_FILE COUNT SECONDS
"""
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port_file, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
seen = set()
complete = threading.Event()


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        event = json.loads(body)
        order = event["data"]
        # At least once: the same order may come twice.
        if order["id"] not in seen:
            seen.add(order["id"])
            print(f"    <- shipping got   {json.dumps(order)}   (from {event['source']})", flush=True)
        self.send_response(204)
        self.end_headers()
        if len(seen) == count:
            complete.set()

    def do_GET(self):
        # Subscriptions are declared in resources/subscription.yaml.
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), App)
with open(port_file, "w") as file:
    file.write(str(server.server_port))
threading.Thread(target=server.serve_forever, daemon=True).start()
complete.wait(seconds)
sys.exit(0 if complete.is_set() else 1)
