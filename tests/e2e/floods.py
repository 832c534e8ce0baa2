"""G03, G06, G07, and h2spec: HTTP/2 that no library sends."""

import subprocess
import threading
import time
import xml.etree.ElementTree

from harness import (CONTINUATION, DATA, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, Refused, Wire, expect, frame,
                     header_block)

PATH = "/gitmoor.v1.ConnectionService/GetConnection"
FLOOD = 20_000
# Resident memory that a flood may cost, in MiB.
GROWTH = 16

# Cases of h2spec that a gRPC server does not pass, each with the reason that it is in order.
KNOWN = {
    "generic/2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream":
        "waits for a DATA frame; a call without a message is refused in the head of the answer alone",
    "generic/2: Sends a PRIORITY frame on half-closed (remote) stream": "the same",
    "http2/3.5: Sends invalid connection preface": "the connection ends with a reset, which h2spec does not take for an end",
    "http2/5.1.2: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded":
        "each of its calls is refused and over before the next is sent, so that the limit is never reached",
}


def run(checks, bench):
    folder = bench.fresh("floods")
    server = bench.serve(folder / "data", bench.keys(folder))
    client = bench.client(server.address)
    client.all_connections()
    checks.run("G03 a length prefix of 4 GB", huge_prefix, server, client)
    request = header_block(PATH)
    whole = frame(HEADERS, 4, 1, request)

    def resets(number):
        stream = number * 2 + 1
        return frame(HEADERS, 4, stream, request) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")

    # h2 closes where a peer makes it work or keep something. The last three cost it neither: it answers one SETTINGS or
    # PING at a time and reads no further while the answer is not taken, so flat memory and served others is the promise.
    floods = {
        "G06 rapid reset": (b"", resets, True),
        "G07 CONTINUATION": (frame(HEADERS, 0, 1, request), lambda _: frame(CONTINUATION, 0, 1, b"\0\1a\x20" + b"b" * 32), True),
        "G07 empty DATA": (whole, lambda _: frame(DATA, 0, 1), False),
        "G07 SETTINGS": (b"", lambda _: frame(SETTINGS, 0, 0), False),
        "G07 PING": (b"", lambda _: frame(PING, 0, 0, b"12345678"), False),
        "G07 PRIORITY": (whole, lambda number: frame(PRIORITY, 0, number * 2 + 3, b"\0\0\0\0\0"), False),
    }
    for name, (begin, one, must_close) in floods.items():
        checks.run(f"{name} flood of {FLOOD} frames", flood, server, client, begin, one, must_close)
    client.close()
    checks.run("h2spec", h2spec, bench, server)
    checks.run("the same process served all that, and ends in order", lambda: expect(server.stop() == 0, "a clean end"))


def huge_prefix(server, client):
    before = server.rss()
    wires = [Wire(server.port) for _ in range(20)]
    for wire in wires:
        wire.send(frame(SETTINGS, 1, 0) + frame(HEADERS, 4, 1, header_block(PATH, ("grpc-timeout", "2S")))
                  + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + b"0123456789"))
    time.sleep(1)
    grown = server.rss() - before
    answered = all(len(wire.received) > 60 for wire in wires)
    for wire in wires:
        wire.close()
    client.all_connections()
    expect(answered, "refused before or at the deadline")
    expect(grown < GROWTH, f"{grown:.1f} MiB more")
    return f"{grown:.1f} MiB more by 20 of them"


def flood(server, client, begin, one, must_close):
    before, worst, stop = server.rss(), [0.0], threading.Event()

    def other():
        while not stop.is_set():
            since = time.monotonic()
            client.all_connections()
            worst[0] = max(worst[0], time.monotonic() - since)

    caller = threading.Thread(target=other)
    caller.start()
    wire = Wire(server.port)
    wire.send(frame(SETTINGS, 1, 0) + begin)
    sent = 0
    # In small lots, so that the end of the connection is noticed.
    while sent < FLOOD and wire.send(b"".join(one(number) for number in range(sent, sent + 50))):
        sent += 50
    closed = wire.closed.wait(3)
    peak = server.rss()
    stop.set()
    caller.join(30)
    time.sleep(0.5)
    busy = server.cpu()
    time.sleep(1)
    busy = server.cpu() - busy
    wire.close()
    expect(closed or not must_close, f"still open after {sent} frames")
    expect(peak - before < GROWTH, f"{peak - before:.1f} MiB more")
    expect(busy < 0.3, f"{busy:.2f} s of processor time in the second after")
    expect(worst[0] < 3, f"another client waited {worst[0]:.2f} s")
    end = f"closed after {sent}" if closed else f"taken in, {sent} frames"
    return f"{end}; {peak - before:.1f} MiB more, others waited {worst[0] * 1000:.0f} ms at most, idle at {busy:.2f}"


def h2spec(bench, server):
    report = bench.folder / "h2spec.xml"
    subprocess.run(
        ["h2spec", "-h", "127.0.0.1", "-p", str(server.port), "-P", "/grpc.health.v1.Health/Check", "-o", "2",
         "--junit-report", str(report)], capture_output=True, text=True, timeout=300)
    failed, count = [], 0
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        count += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('package')}: {case.get('classname')}")
    unknown = [name for name in failed if name not in KNOWN]
    expect(count > 100, f"only {count} cases ran")
    expect(not unknown, f"{len(failed)} of {count} failed, not known before: {unknown}")
    return f"{count} cases, {len(failed)} known exceptions"
