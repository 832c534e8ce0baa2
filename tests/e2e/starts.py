"""Starts, refused starts, restarts, ends."""

import hashlib
import os
import signal
import stat
import threading
import time

from harness import (GITLAB_TOKEN, DATA, HEADERS, SETTINGS, Refused, Wire, expect, frame, free_port, header_block, refused)


def run(checks, bench):
    forge = bench.start_forge()
    folder = bench.fresh("starts")
    key, data = bench.keys(folder), folder / "data"
    checks.run("everything is there after a restart", restart, bench, forge, key, data)
    checks.run("K04 a second process on the directory is refused, the first goes on", second, bench, key, data)
    checks.run("S28 another key file is refused, the store unchanged", wrong_key, bench, folder, data)
    checks.run("a missing key file is refused", missing_key, bench, folder, data)
    checks.run("a start without a key file is refused", no_key, bench, folder)
    checks.run("O04 a listener other than loopback is refused", exposed, bench, folder, key)
    checks.run("O03 an unknown key in the file is refused with the nearest", unknown, bench, folder)
    checks.run("an address in use", in_use, bench, folder, key)
    checks.run("a socket of mode 0660, and its health check", unix_socket, bench, folder, key)
    checks.run("SIGTERM: what is under way finishes, what is new is turned away", drain, bench, key, data)
    checks.run("G09 SIGTERM with a silent client", silent, bench, key, data)
    checks.run("G22 a thousand SIGHUPs", hangups, bench, key, data)


def restart(bench, forge, key, data):
    allow = ("--egress-allow", forge.url)
    server = bench.serve(data, key, *allow)
    client = bench.client(server.address)
    before = [client.create(f"kept-{number}", "gitlab", f"{forge.url}/gitlab", GITLAB_TOKEN) for number in range(10)]
    client.close()
    expect(server.stop() == 0, "a clean end")
    server = bench.serve(data, key, *allow)
    client = bench.client(server.address)
    for connection in before:
        expect(client.get(connection.name.rsplit("/", 1)[1]).uid == connection.uid, connection.name)
    expect(client.page("kept-3", 5).repositories, "the token opens")
    client.close()
    expect(server.stop() == 0, "a clean end")


def second(bench, key, data):
    first = bench.serve(data, key)
    other = bench.serve(data, key, wait=False)
    code = other.child.wait(30)
    expect(code == 5, f"ended with {code}: {other.text()}")
    client = bench.client(first.address)
    expect(client.get("kept-1"), "the first serves")
    client.close()
    expect(first.stop() == 0, "a clean end")
    return "exit code 5"


def digest(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def wrong_key(bench, folder, data):
    other = folder / "other"
    other.mkdir()
    key = bench.keys(other)
    before = digest(data)
    server = bench.serve(data, key, wait=False)
    code = server.child.wait(30)
    expect(code == 4, f"ended with {code}: {server.text()}")
    expect(digest(data) == before, "the store has changed")
    return "exit code 4"


def missing_key(bench, folder, data):
    before = digest(data)
    server = bench.serve(data, folder / "nowhere", wait=False)
    code = server.child.wait(30)
    expect(code == 4, f"ended with {code}: {server.text()}")
    expect(digest(data) == before, "the store has changed")


def no_key(bench, folder):
    done = bench.command("serve", "--data-dir", folder / "unused")
    expect(done.returncode == 3 and "key" in done.stderr, f"{done.returncode}: {done.stderr}")
    expect(not (folder / "unused").exists(), "nothing was made")


def exposed(bench, folder, key):
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:50051"):
        done = bench.command("serve", "--data-dir", folder / "exposed", "--key-file", key, "--listen", address)
        expect(done.returncode == 3, f"{address}: {done.returncode}: {done.stderr}{done.stdout}")


def unknown(bench, folder):
    file = folder / "config.toml"
    file.write_text('data_dri = "/tmp/x"\n')
    done = bench.command("serve", "--config", file)
    expect(done.returncode == 3 and "data_dir" in done.stderr, f"{done.returncode}: {done.stderr}")


def in_use(bench, folder, key):
    first = bench.serve(folder / "first", key)
    other = bench.serve(folder / "other-data", key, wait=False, port=first.port)
    code = other.child.wait(30)
    expect(code == 6, f"ended with {code}: {other.text()}")
    expect(first.stop() == 0, "a clean end")


def unix_socket(bench, folder, key):
    path = folder / "gitmoor.sock"
    server = bench.serve(folder / "unix-data", key, "--listen", f"unix:{path}")
    found = path.stat()
    expect(stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o660, oct(found.st_mode))
    for address in (f"unix:{path}", server.address):
        done = bench.command("healthcheck", "--address", address)
        expect(done.returncode == 0, f"{address}: {done.stderr}")
    client = bench.client(f"unix:{path}")
    client.all_connections()
    client.close()
    expect(server.stop() == 0, "a clean end")
    expect(not path.exists(), "the socket is removed")
    done = bench.command("healthcheck", "--address", server.address)
    expect(done.returncode == 1, f"{done.returncode}: {done.stderr}")


def drain(bench, key, data):
    slow = bench.start_forge("--latency-ms", "700")
    server = bench.serve(data, key, "--egress-allow", slow.url, "--drain-timeout", "20s")
    client = bench.client(server.address)
    client.create("slow", "gitlab", f"{slow.url}/gitlab", GITLAB_TOKEN)
    outcome = []

    def list_slowly():
        try:
            outcome.append(len(client.page("slow", 5).repositories))
        except Refused as error:
            outcome.append(error)

    caller = threading.Thread(target=list_slowly)
    caller.start()
    time.sleep(0.3)
    server.child.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    try:
        client.get("slow")
    except Refused as error:
        expect(error.code == "UNAVAILABLE", f"{error}")
    else:
        raise AssertionError("a new call was taken")
    caller.join(30)
    expect(outcome == [5], f"the call under way: {outcome}")
    code = server.child.wait(30)
    client.close()
    expect(code == 0, f"ended with {code}")


def silent(bench, key, data):
    server = bench.serve(data, key, "--drain-timeout", "2s")
    wire = Wire(server.port)
    # A call that is begun and never goes on.
    wire.send(frame(SETTINGS, 1, 0) + frame(HEADERS, 4, 1, header_block("/gitmoor.v1.ConnectionService/GetConnection"))
              + frame(DATA, 0, 1, b"\0\0\0\0\x20"))
    time.sleep(0.3)
    since = time.monotonic()
    code = server.stop(seconds=30)
    took = time.monotonic() - since
    wire.close()
    expect(code == 0, f"ended with {code}")
    # The timeout of 2 s, and room for a busy machine.
    expect(took < 7, f"{took:.1f} s")
    return f"status 0 after {took:.1f} s of 2 s"


def hangups(bench, key, data):
    server = bench.serve(data, key)
    client = bench.client(server.address)
    for number in range(1000):
        os.kill(server.pid, signal.SIGHUP)
        if number % 100 == 0:
            client.get("kept-1")
    client.get("kept-1")
    client.close()
    expect(server.stop() == 0, "a clean end")
