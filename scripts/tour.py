#!/usr/bin/env python3
"""Takes the README's five-minute tour as it is written: every `$` line of it, in order, in a directory of its own.

    scripts/tour.py [CALLVAULT]          default: target/debug/callvault, which must be built

Lines that serve run until the text says to stop. RECORD and MESSAGE are what was put last. Needs `moto_server` on the path.
It is the text that is tested: a command that the README misspells fails here.
"""
import math
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import wave

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/callvault").resolve()
# The reader writes a configuration of his own from here on.
LAST = "callvault rebuild-index --config examples/s3.toml"
PATIENCE = 60


def steps() -> list[str]:
    tour = (ROOT / "README.md").read_text().split("## A five-minute tour")[1].split("\n## ")[0]
    lines = [line[2:] for line in tour.splitlines() if line.startswith("$ ")]
    assert f"`{LAST}`" in tour, "the tour no longer loses the machine"
    return lines[: lines.index("callvault config check callvault.toml")] + [LAST]


class Tour:
    def __init__(self, place: pathlib.Path):
        self.place = place
        self.put = {"RECORD": "", "MESSAGE": ""}
        self.env = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
        self.servers: list[subprocess.Popen] = []
        self.vault: subprocess.Popen | None = None

    def take(self, line: str) -> None:
        print(f"$ {line}", flush=True)
        if line.startswith("cargo build"):
            return
        if line.startswith("export "):
            self.env |= dict(word.split("=", 1) for word in line.split()[1:])
        elif line.endswith("&"):
            self.background(line.rstrip("& "))
        elif line.startswith("callvault serve"):
            self.serve(line)
        else:
            if line.startswith("rm -r callvault-data/index"):
                self.stop()
            elif line == LAST:
                self.stop()
                subprocess.run(["rm", "-r", "callvault-s3/data"], cwd=self.place, check=True)
            self.run(line)

    def run(self, line: str) -> None:
        for name, value in self.put.items():
            line = re.sub(rf"\b{name}\b", value, line)
        done = subprocess.run(line, shell=True, cwd=self.place, env=self.env, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            sys.exit(f"the tour ends here, with {done.returncode}: {line}")
        if " put " in line:
            record = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.stdout)
            assert record, "a put that names no record"
            self.put["MESSAGE" if " message put " in f" {line}" else "RECORD"] = record.group()

    def serve(self, line: str) -> None:
        self.stop()
        self.vault = self.background(line, stdout=subprocess.PIPE, text=True)
        for said in self.vault.stdout:
            if said.startswith("ready"):
                print(said, end="")
                return
        sys.exit(f"it never got ready: {line}")

    def background(self, line: str, **more) -> subprocess.Popen:
        more = {"stdout": subprocess.DEVNULL} | more
        log = open(self.place / f"server-{len(self.servers)}.log", "w")
        server = subprocess.Popen(["sh", "-c", f"exec {line}"], cwd=self.place, env=self.env, stderr=log, **more)
        self.servers.append(server)
        return server

    def stop(self) -> None:
        if self.vault:
            self.vault.send_signal(signal.SIGTERM)
            assert self.vault.wait(PATIENCE) == 0, "the server did not end well"
            self.vault = None

    def end(self) -> None:
        for server in self.servers:
            if server.poll() is None:
                server.kill()
            server.wait()


def call(path: pathlib.Path) -> None:
    """Two minutes of a tone."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        second = b"".join(struct.pack("<h", int(9000 * math.sin(n / 5))) for n in range(8000))
        out.writeframes(second * 120)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        (place / "bin").mkdir()
        (place / "bin/callvault").symlink_to(BINARY)
        (place / "examples").symlink_to(ROOT / "examples")
        call(place / "call.wav")
        (place / "transcript.txt").write_text("- Bueno?\n- Hola, hablo por mi factura.\n")
        tour, begun = Tour(place), time.monotonic()
        try:
            for line in steps():
                tour.take(line)
            back = subprocess.run(["cmp", "call.wav", "copy.wav"], cwd=place)
            assert back.returncode == 0, "the copy is not the call"
            tour.stop()
        except BaseException:
            for log in sorted(place.glob("server-*.log")):
                print(f"--- {log.name}\n{log.read_text()[-4000:]}", file=sys.stderr)
            raise
        finally:
            tour.end()
        print(f"the tour took {time.monotonic() - begun:.0f} s")


main()
