"""One grpcio channel that does what it is told.

    python channel.py TARGET [SETTINGS]

SETTINGS is a JSON object: "options" (a list of name and value) and "gzip". Reads
a JSON object a line from stdin and answers each with one: {"send": RECORD} with
"metadata", "method" and "wait" if wanted, {"idle": SECONDS}, {"crowd": CALLS,
"rounds": N, "bytes": N, "threads": BOOL}, with "channels" on each of so many fresh
ones, {"steady": THREADS, "bytes": N}, {"acked": null} for how many calls of those
were answered so far, {"stop": null}, {"states": null}.
"""

import itertools
import json
import sys
import threading
import time

import grpc
import sdk  # tests/sdk/grpcio/sdk.py: how a record is coded

# So long that a call which hangs is told from one that waits its turn.
DEADLINE = 60


class Channel:
    def __init__(self, target, options=(), gzip=False):
        self.channel = grpc.insecure_channel(
            target,
            options=[tuple(option) for option in options],
            compression=grpc.Compression.Gzip if gzip else None,
        )
        self.states = []
        self.channel.subscribe(lambda state: self.states.append(state.name))
        self.steady = None

    def method(self, path):
        return self.channel.unary_unary(
            path,
            request_serializer=sdk.encode_request,
            response_deserializer=sdk.decode_response,
        )

    def send(self, record, metadata=(), method=sdk.METHOD, wait=False):
        began = time.monotonic()
        try:
            answer = self.method(method)(
                record,
                timeout=DEADLINE,
                metadata=[tuple(pair) for pair in metadata],
                wait_for_ready=wait,
            )
            told = {"code": "OK", **answer}
        except grpc.RpcError as error:
            told = {"code": error.code().name, "message": error.details()}
        return {**told, "seconds": round(time.monotonic() - began, 3)}

    def crowd(self, calls, rounds, size, threads):
        """So many calls in flight, from threads that wait each for its own, or from
        one that begins them all before it waits."""
        began = time.monotonic()
        failed = []
        records = [
            {"json_data": json.dumps(f"{call}." + "x" * size), "pipelines": ["p"], "api_key": "k"}
            for call in range(calls)
        ]
        if threads:
            start = threading.Barrier(calls)

            def work(record):
                start.wait()
                for _ in range(rounds):
                    told = self.send(record)
                    if told["code"] != "OK":
                        failed.append(told)

            workers = [threading.Thread(target=work, args=(record,)) for record in records]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        else:
            method = self.method(sdk.METHOD)
            for _ in range(rounds):
                futures = [method.future(record, timeout=DEADLINE) for record in records]
                for future in futures:
                    if future.code() != grpc.StatusCode.OK:
                        told = {"code": future.code().name, "message": future.details()}
                        failed.append(told)
        seconds = round(time.monotonic() - began, 3)
        return {"calls": calls * rounds, "failed": failed, "seconds": seconds}


class Steady:
    """From now on threads that send one record after the other, each with a number
    of its own, behind which blanks may follow."""

    def __init__(self, channel, threads, size):
        self.padding = " " * size
        self.channel = channel
        self.numbers = itertools.count()
        self.ended = threading.Event()
        self.acked, self.failed = [], []
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ended.is_set():
            number = next(self.numbers)
            record = {
                "json_data": str(number) + self.padding,
                "pipelines": ["steady"],
                "api_key": "k",
            }
            told = self.channel.send(record, wait=True)
            if told["code"] == "OK":
                self.acked.append(number)
            else:
                self.failed.append({"number": number, **told})

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return {"acked": self.acked, "failed": self.failed}


def crowd_on_fresh(target, count, order):
    # Channels of one process would else share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [Channel(target, options) for _ in range(count)]
    told = [None] * count
    start = threading.Barrier(count)

    def work(at):
        start.wait()
        told[at] = channels[at].crowd(*order)

    workers = [threading.Thread(target=work, args=(at,)) for at in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "calls": sum(one["calls"] for one in told),
        "failed": [failed for one in told for failed in one["failed"]],
        "seconds": max(one["seconds"] for one in told),
    }


def do(target, channel, order):
    if "send" in order:
        names = ("metadata", "method", "wait")
        return channel.send(
            order["send"], **{name: order[name] for name in names if name in order}
        )
    if "crowd" in order:
        what = [order[name] for name in ("crowd", "rounds", "bytes", "threads")]
        if "channels" in order:
            return crowd_on_fresh(target, order["channels"], what)
        return channel.crowd(*what)
    if "idle" in order:
        time.sleep(order["idle"])
        return {}
    if "steady" in order:
        channel.steady = Steady(channel, order["steady"], order["bytes"])
        return {}
    if "acked" in order:
        return {"acked": len(channel.steady.acked)}
    if "stop" in order:
        return channel.steady.end()
    if "states" in order:
        return {"states": channel.states}
    raise ValueError(order)


def main():
    target, *settings = sys.argv[1:]
    channel = Channel(target, **json.loads(settings[0] if settings else "{}"))
    for line in sys.stdin.buffer:
        print(json.dumps(do(target, channel, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
