"""The main server on Python's http.server, and what a server may get wrong.

usage: plain.py PORT PROTOCOL [UNREAD]

So many POSTs at first are turned away without being read, as a handler does that
looks at the headers alone.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from journal import take, wish

OK = b"HTTP/1.1 200 OK\r\n"
FOUR = OK + b"Content-Length: 4\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

# Answers that keep the connection. No framework gives a trailer or a 100 that
# no client waits for.
KEEPING = {
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + FOUR
    + b"done",
    "trailers": CHUNKED + b"4\r\ndone\r\n0\r\nServer-Timing: a;dur=1\r\nX: y\r\n\r\n",
}

# Answers after which it closes.
CLOSING = {
    "surplus": FOUR + b"done and more than that",
    "two_framings": OK
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = sys.argv[2]
    unread = int(sys.argv[3]) if len(sys.argv) > 3 else 0

    def do_GET(self):
        self.answer()

    def do_POST(self):
        if Handler.unread > 0:
            Handler.unread -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        wanted = wish(*take(body, key, self.client_address[1]))
        if wanted in KEEPING:
            self.wfile.write(KEEPING[wanted])
        elif wanted in CLOSING:
            self.wfile.write(CLOSING[wanted])
            self.close_connection = True
        else:
            self.answer()

    def answer(self):
        self.send_response(200)
        if self.protocol_version == "HTTP/1.1":
            self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
