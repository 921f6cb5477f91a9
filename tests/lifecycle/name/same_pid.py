"""same_pid.py AGENT FOLDER URL LIVES: as the first process of a PID namespace, starts agent
after agent under one and the same pid, kills each, and looks in between as a client
does: a name that exists must lead to an agent that answers."""

import os
import signal
import socket
import subprocess
import sys
import time

agent, folder, url = sys.argv[1:4]
lives = int(sys.argv[4])
name = os.path.join(folder, "data-nadhi-agent.sock")
links, refused = set(), []
for life in range(lives):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write("100")
    process = subprocess.Popen(
        [agent, "-datanadhi", folder, "-health-url", url], stdout=subprocess.DEVNULL
    )
    assert process.pid == 101, process.pid
    end = time.monotonic() + 20
    while True:
        assert time.monotonic() < end, "no agent answers"
        assert process.poll() is None, process.returncode
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(name)
            break
        except FileNotFoundError:
            continue
        except OSError as error:
            refused.append((life, error))
        finally:
            client.close()
    links.add(os.readlink(os.path.join(folder, ".agent/socket")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not os.path.exists(name) and os.path.islink(name)
    # The next agent's sweep takes its time: what could lead astray does so for long.
    for number in range(500):
        open(os.path.join(folder, f".agent/{number}"), "w").close()
places = {link.rpartition("/")[0] for link in links}
print(f"{len(links)} links through {places}, refused: {refused}")
# What an agent finds of the store decides which descriptors are taken.
assert len(links) == lives and len(places) < 6, "the numbers differ: nothing was tried"
assert not refused, refused
