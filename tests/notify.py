#!/usr/bin/env python3
"""Plays the service manager for tests/package.sh: starts a server as a service of type notify, and checks what it says.

    notify.py SOCKET COMMAND...

SOCKET is where it listens, a path or @name. Checked, in this order: READY=1 comes once the server answers, not before;
it says that it is alive several times; SIGHUP is answered with RELOADING=1 and READY=1; after SIGTERM comes STOPPING=1, and
the exit code is 0. NOTIFY_CHECK, a shell command, has to succeed as soon as READY=1 was heard.
"""
import os
import select
import signal
import socket
import subprocess
import sys
import time

WATCHDOG_USEC = 400_000
PATIENCE = 120.0


def fail(why):
    print(f"notify: {why}", file=sys.stderr)
    sys.exit(1)


def main():
    name, command = sys.argv[1], sys.argv[2:]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("\0" + name[1:] if name.startswith("@") else name)
    environment = dict(os.environ, NOTIFY_SOCKET=name, WATCHDOG_USEC=str(WATCHDOG_USEC))
    environment.pop("WATCHDOG_PID", None)
    server = subprocess.Popen(command, env=environment)

    def hear(*wanted, but_not=()):
        """The next message that holds one of the wanted lines; every message before it is looked at and let go."""
        until = time.monotonic() + PATIENCE
        while True:
            if select.select([listener], [], [], 0.1)[0]:
                lines = listener.recv(4096).decode().split("\n")
                for line in lines:
                    if line in but_not:
                        fail(f"{line} came before {' or '.join(wanted)}")
                    if line in wanted:
                        return lines
            elif server.poll() is not None:
                fail(f"the server ended with {server.returncode} before it said {' or '.join(wanted)}")
            elif time.monotonic() > until:
                fail(f"the server did not say {' or '.join(wanted)}")

    try:
        ready = hear("READY=1", but_not=("STOPPING=1", "WATCHDOG=1", "RELOADING=1"))
        check = os.environ.get("NOTIFY_CHECK")
        if check and subprocess.call(["sh", "-c", check], stdout=subprocess.DEVNULL) != 0:
            fail(f"the server said that it is ready, and this failed: {check}")
        print("     it says:", ", ".join(ready))
        for _ in range(4):
            hear("WATCHDOG=1", but_not=("STOPPING=1",))
        print("     it says: WATCHDOG=1, again and again")
        server.send_signal(signal.SIGHUP)
        hear("RELOADING=1", but_not=("STOPPING=1", "READY=1"))
        hear("READY=1", but_not=("STOPPING=1",))
        print("     on SIGHUP it says: RELOADING=1, READY=1")
        server.terminate()
        hear("STOPPING=1", but_not=("READY=1", "RELOADING=1"))
        status = server.wait(timeout=PATIENCE)
        if status != 0:
            fail(f"the server ended with {status}, 0 was expected")
        print("     on SIGTERM it says: STOPPING=1, and ends with exit code 0")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


main()
