"""The main server as a WSGI application, for gunicorn. A record says itself how
it is to be answered."""

import gzip
import os
import signal
import time

from journal import take, wish

BIG = 10_000_000
# Bytes of a body; a longer one is turned away unread.
LIMIT = float(os.environ.get("LIMIT", "inf"))


def application(environ, start):
    if environ["REQUEST_METHOD"] == "GET":
        return answer(start, "200 OK", b"ok")
    if int(environ["CONTENT_LENGTH"]) > LIMIT:
        return answer(start, "413 No", b"413 Request Entity Too Large")
    body = environ["wsgi.input"].read()
    # Caddy tells its own connection to the client; without it there is the port.
    connection = environ.get("HTTP_X_CONNECTION") or environ["REMOTE_PORT"]
    key = environ["HTTP_IDEMPOTENCY_KEY"]
    return ANSWERS[wish(*take(body, key, connection))](environ, start)


def answer(start, status, body, *headers):
    start(status, [("Content-Length", str(len(body))), *headers])
    return [body]


def ok(environ, start):
    return answer(start, "200 OK", b'{"ok":true}')


def slow(environ, start):
    time.sleep(0.01)
    return ok(environ, start)


def hang(environ, start):
    time.sleep(60)
    return ok(environ, start)


def crash(environ, start):
    os.kill(os.getpid(), signal.SIGKILL)


def late(environ, start):
    time.sleep(0.7)
    return ok(environ, start)


def chunked(environ, start):
    start("200 OK", [])
    return (b"x" * 100 for _ in range(20))


def hints(environ, start):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    environ["wsgi.early_hints"]([("Link", "</script.js>; rel=preload")])
    return ok(environ, start)


def big(environ, start):
    return answer(start, "200 OK", b"x" * BIG)


def big_refusal(environ, start):
    return answer(start, "422 No", b"x" * BIG)


def gzipped(environ, start):
    body = gzip.compress(b"you did not ask for it")
    return answer(start, "200 OK", body, ("Content-Encoding", "gzip"))


def gzipped_refusal(environ, start):
    body = gzip.compress(b"you did not ask for it")
    return answer(start, "400 No", body, ("Content-Encoding", "gzip"))


def expectation(environ, start):
    return answer(start, "417 Expectation Failed", b"")


def long_head(environ, start):
    """A head of 60 KiB, less than the agent takes."""
    return answer(start, "200 OK", b"", *head(60))


def head(kib):
    return [(f"X-{number}", "x" * 4080) for number in range(kib // 4)]


ANSWERS = {
    made.__name__: made
    for made in (
        ok,
        slow,
        hang,
        crash,
        late,
        chunked,
        hints,
        big,
        big_refusal,
        gzipped,
        gzipped_refusal,
        expectation,
        long_head,
    )
}
