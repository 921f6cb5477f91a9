"""Plays a short outage with the very binary that is about to be published.

    smoke.py BINARY

The version must be that of VERSION. A record sent while the server is down must be
answered "stored", survive a SIGTERM (exit 0), be delivered by the next run once
the server is up, and that run must leave by itself with exit 0. Python's standard
library is enough: the gRPC call is a few HTTP/2 frames written by hand.
"""

import http.server
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60  # seconds, for every wait
RECORD = b'{"smoke": [1.50, 18446744073709551616]}'  # must arrive byte for byte
STORED = b"\x08\x01\x12\x06stored"  # LogResponse{success: true, message: "stored"}


def main(binary):
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    printed = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    expect(printed == f"echopost {version}\n", f"--version printed {printed!r}, VERSION says {version}")

    # A short path: a socket's name has room for 104 bytes on macOS.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = Server()
        agent = start(binary, folder, server)
        answer = send(connect(Path(folder) / "data-nadhi-agent.sock", agent))
        expect(STORED in answer, f"the call was answered {answer!r}")
        agent.send_signal(signal.SIGTERM)
        expect(agent.wait(DEADLINE) == 0, f"exit {agent.returncode} after SIGTERM")
        expect(server.bodies == [], "a record was sent to a server that is down")

        server.healthy = True
        agent = start(binary, folder, server)
        expect(agent.wait(DEADLINE) == 0, f"exit {agent.returncode} after the drain")
        expect(server.bodies == [b'{"pipelines":["p"],"log_data":' + RECORD + b"}"], f"delivered: {server.bodies}")
        left = {name for name in os.listdir(folder) if not name.startswith("session-")}
        expect(not left, f"left behind: {left}")
    print(f"smoke: {binary} ({printed.strip()}) stored, kept and delivered a record, and left")


def expect(holds, complaint):
    if not holds:
        sys.exit(f"smoke: {complaint}")


class Server(http.server.ThreadingHTTPServer):
    """The main server: down until it is healthy."""

    def __init__(self):
        self.healthy = False
        self.bodies = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.server.healthy else 503)

    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def start(binary, folder, server):
    url = f"http://127.0.0.1:{server.server_port}"
    return subprocess.Popen([binary, "-datanadhi", folder, "-health-url", url], stdout=subprocess.DEVNULL)


def connect(path, agent):
    end = time.monotonic() + DEADLINE
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        try:
            client.connect(str(path))
            return client
        except OSError as error:
            client.close()
            expect(agent.poll() is None, f"exit {agent.returncode} at start")
            expect(time.monotonic() < end, f"{path}: {error}")
            time.sleep(0.01)


def send(client):
    """Sends one record; returns the data of the answer."""
    message = b"\x0a" + bytes([len(RECORD)]) + RECORD + b"\x12\x01p"
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/logagent.LogAgent/SendLog",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
    client.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")  # SETTINGS
        + frame(1, 4, 1, block)  # HEADERS, END_HEADERS
        + frame(0, 1, 1, struct.pack(">BI", 0, len(message)) + message)  # DATA, END_STREAM
    )
    data = b""
    with client, client.makefile("rb") as answer:
        while True:
            head = answer.read(9)
            expect(len(head) == 9, f"the connection ended after {data!r}")
            kind, flags = head[3], head[4]
            payload = answer.read(int.from_bytes(head[:3], "big"))
            expect(kind not in (3, 7), f"the call was reset: frame {kind}, {payload!r}")
            data += payload if kind == 0 else b""
            if kind in (0, 1) and flags & 1:  # END_STREAM
                return data


def text(value):
    """An HPACK string without Huffman coding."""
    return bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
