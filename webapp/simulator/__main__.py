"""`python -m webapp.simulator`: the simulator alone, without Django."""

import argparse
import sys

from webapp.simulator.run import DEFAULT_HOST, DEFAULT_PORT, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m webapp.simulator", description=__doc__)
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="default %(default)s, 0: any free")
    options = parser.parse_args()
    return serve(options.host, options.port)


def port(text: str) -> int:
    """Return a TCP port number. Raises ValueError, which argparse turns into a plain error."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port: give 0 to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
