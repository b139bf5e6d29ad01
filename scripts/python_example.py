"""Runs examples/python/upload.py against a real server, over connections that are cut, and kills the server under it.

Called by python_example.sh, which installs what is needed. What came back is compared byte for byte.
"""

import hashlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CALLVAULT, STUBS = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
EXAMPLE = Path(__file__).resolve().parent.parent / "examples/python/upload.py"
SIZE = 12 << 20
# What the client may send over each connection before that is cut; the rest may go on.
CUTS = [1 << 20, 2 << 20, 3 << 20, 1 << 20]
# Cuts at which the server dies as well.
KILLS = {2}
DURABLE_SECONDS = 1.5


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server in dev mode, always at the same address."""

    def __init__(self, data):
        self.data, self.port = data, free_port()
        self.start()

    def start(self):
        command = [CALLVAULT, "serve", "--dev", "--listen", f"127.0.0.1:{self.port}", "--data", self.data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line

    def kill(self):
        self.process.kill()
        self.process.wait()


class Proxy:
    """Passes bytes on to the server, and cuts the first connections after so many."""

    def __init__(self, server):
        self.server, self.cuts = server, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.server.port))
        except OSError:
            return client.close()
        threading.Thread(target=copy, args=(server, client), daemon=True).start()
        left = CUTS[self.cuts] if self.cuts < len(CUTS) else None
        copy(client, server, left)
        if left is not None and not is_open(client):
            return
        if left is not None:
            kill = self.cuts in KILLS
            self.cuts += 1
            if kill:
                # What arrived is durable within a second: the new server has it.
                time.sleep(DURABLE_SECONDS)
                self.server.kill()
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
            if kill:
                self.server.start()


def copy(source, target, most=None):
    passed = 0
    try:
        while most is None or passed < most:
            data = source.recv(64 << 10)
            if not data:
                break
            target.sendall(data)
            passed += len(data)
    except OSError:
        pass
    if most is None:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def is_open(client):
    try:
        client.getpeername()
        return True
    except OSError:
        return False


def run_example(client_file, recording, request_id):
    command = [sys.executable, EXAMPLE, recording, "--client", client_file]
    command += ["--conversation", "crm-4711", "--request-id", request_id]
    environment = {**os.environ, "PYTHONPATH": f"{STUBS}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def main():
    with tempfile.TemporaryDirectory() as directory:
        data, recording = Path(directory) / "data", Path(directory) / "call.wav"
        content = b"".join(hashlib.sha256(n.to_bytes(8, "big")).digest() for n in range(SIZE // 32))
        recording.write_bytes(content)
        server = Server(data)
        try:
            proxy = Proxy(server)
            told = (data / "client.toml").read_text()
            client_file = data / "proxied.toml"
            client_file.write_text(told.replace(f":{server.port}", f":{proxy.port}"))
            done = run_example(client_file, recording, "call-1")
            sys.stderr.write(done.stderr)
            assert done.returncode == 0, done
            assert done.stderr.count("going on at byte 0\n") == 1, "what was durable was sent again"
            assert proxy.cuts == len(CUTS), f"{proxy.cuts} cuts"
            record = done.stdout.strip()
            get = [CALLVAULT, "get", record, "-o", "-", "--client", data / "client.toml"]
            got = subprocess.run(get, capture_output=True, check=True).stdout
            assert got == content, "the recording came back changed"
            again = run_example(client_file, recording, "call-1")
            assert again.stdout.strip() == record, again
            refused = run_example(client_file, Path(__file__), "call-1")
            assert refused.returncode == 1 and "REQUEST_ID_REUSED" in refused.stderr, refused
            print(f"{SIZE} bytes over {proxy.cuts} cut connections and {len(KILLS)} killed server: equal")
        finally:
            server.kill()


main()
