"""Sends the agent a request that is not what gRPC asks for, then a well-behaved one.

    python frames.py SOCKET

Reads a JSON object a line from stdin: "pieces", a list of the frames of one
request. A piece is {"headers": [[name, value], …]} for HEADERS, {"data": HEX} for
DATA, either with "end": true for END_STREAM, {"reset": CODE} for RST_STREAM, or
{"pings": N, "pause": SECONDS} for PING frames and the time between them. Answers
with a JSON object: "headers" (of the answer, trailers included), "reset" and
"goaway" (their codes) where they came, "closed", "pongs", "bad" (an answer that
h2 does not take), and "next": the grpc-status of a well-behaved call afterwards, on the
same connection where that is open ("again": false) or on a new one (true).
"""

import json
import socket
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions

# A stream that nothing comes on for so long is not answered.
DEADLINE = 20.0
WELL_BEHAVED_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/logagent.LogAgent/SendLog"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
# The record "1".
WELL_BEHAVED_MESSAGE = bytes.fromhex("00 00000003 0a 01 31")


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()
        self.flush()
        self.seen = {"headers": {}, "pongs": 0, "closed": False}

    def flush(self):
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            self.seen["closed"] = True

    def request(self, pieces):
        """The answer to a request of these pieces."""
        self.seen = {"headers": {}, "pongs": 0, "closed": False}
        stream = self.h2.get_next_available_stream_id()
        try:
            for piece in pieces:
                self.send(stream, piece)
                self.flush()
        except (h2.exceptions.ProtocolError, KeyError) as error:
            # The agent has ended the stream meanwhile.
            self.seen["unsent"] = repr(error)
        if any("headers" in piece for piece in pieces):
            self.read_until(DEADLINE, lambda: self.ended == stream)
        return self.seen

    ended = None

    def send(self, stream, piece):
        end = piece.get("end", False)
        if "headers" in piece:
            self.h2.send_headers(stream, piece["headers"], end_stream=end)
        elif "data" in piece:
            self.h2.send_data(stream, bytes.fromhex(piece["data"]), end_stream=end)
        elif "reset" in piece:
            self.h2.reset_stream(stream, piece["reset"])
            self.ended = stream
        elif "pings" in piece:
            for number in range(piece["pings"]):
                self.h2.ping(number.to_bytes(8, "big"))
                self.flush()
                time.sleep(piece["pause"])
            self.read_until(DEADLINE, lambda: self.seen["pongs"] >= piece["pings"])
        else:
            raise ValueError(piece)

    def read_until(self, deadline, done):
        end = time.monotonic() + deadline
        while not done() and not self.seen["closed"]:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                self.seen["timeout"] = True
                return
            except OSError:
                data = b""
            if not data:
                self.seen["closed"] = True
                return
            try:
                events = self.h2.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                self.seen["bad"], self.seen["closed"] = repr(error), True
                return
            for event in events:
                self.see(event)
            self.flush()

    def see(self, event):
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self.seen["headers"].update(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = event.stream_id
        elif isinstance(event, h2.events.StreamReset):
            self.seen["reset"] = int(event.error_code)
            self.ended = event.stream_id
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.seen["goaway"] = int(event.error_code)
        elif isinstance(event, h2.events.PingAckReceived):
            self.seen["pongs"] += 1


WELL_BEHAVED = [{"headers": WELL_BEHAVED_HEADERS}, {"data": WELL_BEHAVED_MESSAGE.hex(), "end": True}]


def main():
    (path,) = sys.argv[1:]
    connection = Connection(path)
    for line in sys.stdin.buffer:
        seen = connection.request(json.loads(line)["pieces"])
        again = seen["closed"] or "goaway" in seen
        if again:
            connection = Connection(path)
        answered = connection.request(WELL_BEHAVED)
        if answered["closed"] and not again:
            # Its end had not been read yet.
            again, connection = True, Connection(path)
            answered = connection.request(WELL_BEHAVED)
        told = {**seen, "next": answered["headers"].get("grpc-status"), "again": again}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
