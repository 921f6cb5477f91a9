"""Sends the records of an agent-failure.log through an agent again.

    OWN_API_KEY=... python3 resend.py SOCKET LOG

As the base folder's user, with the Python that has the SDK (it needs grpcio).
OWN_API_KEY goes with the records that came with a key of their own, as all of the
SDK's do; no log holds a key. All of a file get the same one: split a log whose records
had several. A record without one goes with the agent's.

Each record keeps its first Idempotency-Key. The log is left as it is; the lines that
were not stored are in LOG.failed, byte for byte: mend them and send that file.
"""

import json
import os
import stat
import sys

USAGE = "usage: OWN_API_KEY=... python3 resend.py SOCKET LOG    (one log; records of the SDK need their key)"
FIELDS = {
    "json_data": str, "pipelines": list, "api_key_own": bool, "idempotency_key": str, "intact": bool
}


def stop(why):
    sys.exit(f"{why}. Nothing was sent")


def load(line):
    """The record of a line, or why there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return "no record" if line.endswith(b"\n") else "cut off"
    for name, kind in FIELDS.items():
        if not isinstance(record, dict) or not isinstance(record.get(name), kind):
            return f"no record of an agent-failure.log: {name} is missing or of another type"
    return record


def read(path):
    try:
        with open(path, "rb") as log:
            return [line for line in log if line.strip()]
    except OSError as error:
        stop(f"{path}: {error.strerror}")


def check_socket(path):
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            stop(f"{path} is no socket: it comes first, then the log")
    except FileNotFoundError:
        stop(f"{path}: no agent answers: start one, and send within its first 3 s")
    except OSError as error:
        stop(f"{path}: {error.strerror}: run this as the folder's user")


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, text):  # of proto/logagent.proto: all fields are strings
    data = text.encode()
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def send_all(grpc, socket, lines, records, own_key):
    """Returns the lines that were not stored."""
    failed = []
    # A target is a URI: only the socket's own name is sure to mean itself in one.
    os.chdir(os.path.dirname(socket))
    with grpc.insecure_channel("unix:" + os.path.basename(socket)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=5)
        except grpc.FutureTimeoutError:
            stop(f"{socket}: no agent answers: start one, and send within its first 3 s")
        call = channel.unary_unary("/logagent.LogAgent/SendLog")
        for number, (line, record) in enumerate(zip(lines, records), 1):
            try:
                if isinstance(record, str):
                    raise ValueError(record)
                if not record["intact"]:
                    raise ValueError("not intact")
                request = field(1, record["json_data"])
                request += b"".join(field(2, name) for name in record["pipelines"])
                request += field(3, own_key if record["api_key_own"] else "")
                call(request, metadata=[("idempotency-key", record["idempotency_key"])], timeout=60)
            except grpc.RpcError as error:
                print(f"line {number}: {error.code().name}: {error.details()}", file=sys.stderr)
                failed.append(line)
            except (ValueError, AttributeError) as error:
                print(f"line {number}: {error}", file=sys.stderr)
                failed.append(line)
    return failed


def main(arguments):
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    socket, path = map(os.path.abspath, arguments)
    own_key = os.environ.get("OWN_API_KEY")
    lines = read(path)
    records = [load(line) for line in lines]
    whole = [record for record in records if isinstance(record, dict)]
    if lines and not whole:
        stop(f"{path}: {records[0]}; it takes an agent-failure.log")
    own = sum(record["api_key_own"] for record in whole)
    if own and not own_key:
        stop(f"{own} of {len(lines)} records had a key of their own (the SDK's have): set OWN_API_KEY")
    if os.path.lexists(path + ".failed"):
        stop(f"{path}.failed is there already: mend and send it, or move it first")
    if not os.access(os.path.dirname(path), os.W_OK):
        stop(f"{os.path.dirname(path)} cannot be written, where the lines that fail are to be kept")
    check_socket(socket)
    try:
        import grpc
    except ImportError:
        stop("grpcio is missing: run this with the Python that has the SDK")

    try:
        failed = send_all(grpc, socket, lines, records, own_key)
    except KeyboardInterrupt:
        sys.exit(f"interrupted: send the whole of {path} again, a server that heeds Idempotency-Key knows what it has")
    if failed:
        kept = os.open(path + ".failed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(kept, "wb") as kept:
            kept.writelines(failed)
            kept.flush()
            os.fsync(kept.fileno())
    print(f"{len(lines) - len(failed)} stored, {len(failed)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
