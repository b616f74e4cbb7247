"""isa_symbols.py ISA OBJECT...: objects compiled for one instruction set define nothing shared.

An inline function or template outside the set's own namespace is emitted as a weak symbol, and the
linker keeps any one of the copies for everybody: an older processor would run the AVX-512 one.
"""

import subprocess
import sys


def shared_symbols(isa: str, objects: list[str]) -> list[str]:
    found = []
    for path in objects:
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", "--extern-only", path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = [line.split(maxsplit=2)[2] for line in listing.splitlines() if line]
        found += [name for name in names if f"accl::{isa}::" not in name]
    return found


if __name__ == "__main__":
    isa, objects = sys.argv[1], sys.argv[2:]
    if not objects:
        sys.exit("no objects given")
    shared = shared_symbols(isa, objects)
    if shared:
        sys.exit(f"compiled for {isa}, but outside accl::{isa}: " + ", ".join(shared))
    print(f"{len(objects)} objects, all symbols in accl::{isa}")
