#!/usr/bin/env -S python3 -I -S
"""Stands for `systemctl` and `podman` on a device of plain processes: passes its command line on, prints the answer."""

import json
import os
import socket
import sys


def main() -> int:
    """Ask the supervisor that FLEET_MACHINE names."""
    asked = {"tool": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:]}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect("\0" + os.environ["FLEET_MACHINE"])
            connection.sendall(json.dumps(asked).encode() + b"\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            sys.stderr.write(f"the machine does not answer: {error}\n")
            return 1
    if not answer:
        sys.stderr.write("the machine went away\n")
        return 1
    read = json.loads(answer)
    sys.stdout.write(read["out"])
    sys.stderr.write(read["err"])
    return int(read["code"])


if __name__ == "__main__":
    sys.exit(main())
