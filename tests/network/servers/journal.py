"""What the main server was sent, a JSON line a request, for the test to read."""

import json
import os
import time

PATH = os.environ["JOURNAL"]


def take(body, key, connection):
    """Notes a record; returns it, and how often it has come with this one."""
    record = json.loads(body)["log_data"]
    earlier = 0
    if os.path.exists(PATH):
        with open(PATH, encoding="utf-8") as journal:
            earlier = sum(json.loads(line)["key"] == key for line in journal)
    line = {
        "key": key,
        "n": record["n"],
        "connection": str(connection),
        "pid": os.getpid(),
        "at": time.time(),
    }
    with open(PATH, "a", encoding="utf-8") as journal:
        journal.write(json.dumps(line) + "\n")
    return record, earlier + 1


def wish(record, number):
    """What the record asks for, the first `times` times (by default always)."""
    wanted = number <= record.get("times", number)
    return record.get("do", "ok") if wanted else "ok"
