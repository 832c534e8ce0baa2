"""The release binary against the forge, from outside. Run by `.ci/run`; see README.md beside this file."""

import argparse
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import bounds
import calls
import crash
import described
import floods
import harness
import leaks
import starts

PHASES = {"calls": calls, "described": described, "starts": starts, "leaks": leaks, "crash": crash, "bounds": bounds, "floods": floods}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the gitmoor binary")
    parser.add_argument("--forge", required=True, help="the fake_forge example")
    parser.add_argument("--prism", required=True, help="the prism command")
    parser.add_argument("--rounds", type=int, default=20, help="how often the server is killed")
    parser.add_argument("--report", help="where to write the two numbers")
    parser.add_argument("phases", nargs="*", help=f"some of {', '.join(PHASES)}; all of them if left out")
    arguments = parser.parse_args()
    checks = harness.Checks()
    with tempfile.TemporaryDirectory(prefix="gitmoor-e2e-") as folder:
        bench = harness.Bench(folder, arguments.server, arguments.forge)
        bench.rounds, bench.prism = arguments.rounds, arguments.prism
        try:
            for name in arguments.phases or PHASES:
                print(f"--- {name}", flush=True)
                PHASES[name].run(checks, bench)
        finally:
            bench.close()
    print(f"end to end: {checks.passed} passed, {checks.failed} failed")
    if arguments.report:
        pathlib.Path(arguments.report).write_text(f"{checks.passed} {checks.failed}\n")
    # The one step of `.ci/run` fails with any of them.
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
