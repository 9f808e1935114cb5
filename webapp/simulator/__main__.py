"""`python -m webapp.simulator`: the simulator alone, without Django."""

import argparse
import sys

from webapp.simulator.run import add_arguments, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m webapp.simulator", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
