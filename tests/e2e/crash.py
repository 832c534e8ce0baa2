"""The server is killed with SIGKILL in the middle of 16 concurrent creators, again and again."""

import random
import threading
import time

from harness import HOSTS, Refused, expect

CREATORS = 16


def run(checks, bench):
    checks.run(f"{bench.rounds} rounds of kill -9: what was acknowledged is there and opens", rounds, bench)


def rounds(bench):
    forge = bench.start_forge()
    folder = bench.fresh("crash")
    key, data = bench.keys(folder), folder / "data"
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    acknowledged, deleted = {}, set()
    for number in range(bench.rounds):
        server = bench.serve(data, key, "--egress-allow", forge.url)
        fresh, gone = create_until_killed(bench, server, forge, number, chance.uniform(0.02, 0.4))
        acknowledged |= fresh
        deleted |= gone
        server = bench.serve(data, key, "--egress-allow", forge.url)
        client = bench.client(server.address)
        there = client.all_connections()
        lost = acknowledged.keys() - deleted - there
        expect(not lost, f"seed {seed}, round {number}: lost {sorted(lost)}")
        back = deleted & there
        expect(not back, f"seed {seed}, round {number}: back {sorted(back)}")
        for id, uid in fresh.items():
            if id in gone:
                continue
            expect(client.get(id).uid == uid, f"seed {seed}, round {number}: {id} is another one")
            expect(client.page(id, 1).repositories, f"seed {seed}, round {number}: {id} does not open")
        client.close()
        expect(server.stop() == 0, "a clean end")
    expect(len(acknowledged) > bench.rounds, f"only {len(acknowledged)} were ever acknowledged")
    return f"{len(acknowledged)} acknowledged, {len(deleted)} deleted"


def create_until_killed(bench, server, forge, number, after):
    """Lets the creators go and kills the server `after` seconds from the first answer on."""
    fresh, gone, lock, first = {}, set(), threading.Lock(), threading.Event()

    def creator(which):
        client = bench.client(server.address)
        host = list(HOSTS.values())[which % len(HOSTS)]
        try:
            for count in range(1000):
                id = f"r{number}-w{which}-{count}"
                made = client.create(id, host.provider, f"{forge.url}/{host.path}", host.token)
                with lock:
                    fresh[id] = made.uid
                first.set()
                if count % 4 == 3:
                    client.call("DeleteConnection", bench.connection_service.DeleteConnectionRequest(
                        name=f"tenants/default/connections/{id}"))
                    with lock:
                        gone.add(id)
        except Refused as refused:
            # The end that was meant for it; a deletion under way may or may not have happened.
            if refused.code not in ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"):
                problems.append(refused)
            with lock:
                if count % 4 == 3 and id in fresh and id not in gone:
                    del fresh[id]
        finally:
            client.close()

    problems = []
    creators = [threading.Thread(target=creator, args=(which,)) for which in range(CREATORS)]
    for thread in creators:
        thread.start()
    expect(first.wait(60), "nothing was created within a minute")
    time.sleep(after)
    server.kill()
    for thread in creators:
        thread.join(60)
    expect(not problems, problems)
    return fresh, gone
