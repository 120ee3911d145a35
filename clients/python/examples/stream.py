"""Prints a text as it comes: `python examples/stream.py [PROMPT]`."""

import os
import sys

from tandem_client import Client, TandemError, Tls

PROMPT = "def read_lines(path):"


def main() -> int:
    """Asks the server that the environment names."""
    prompt = sys.argv[1] if len(sys.argv) > 1 else PROMPT
    ca_file = os.environ.get("TANDEM_CA_FILE")
    try:
        with Client(
            os.environ.get("TANDEM_ADDRESS", "127.0.0.1:8700"),
            api_key=os.environ.get("TANDEM_API_KEY") or None,
            tls=Tls(ca_file) if ca_file else None,
        ) as client:
            for delta in client.stream(prompt, temperature=0, max_tokens=64):
                print(delta.text, end="", flush=True)
        print()
    except TandemError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
