"""Takes every barrier and every fence out of csrc/cuda in turn: ThreadSanitizer has to see a race.

``python planted.py [PREFIX ...] -- EXECUTABLE CASES [EXECUTABLE CASES ...]``: executables that were
built with -fsanitize=thread, each with its file of cases. Exit status 1 if a race was not seen.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
CALL = re.compile(r"__(syncthreads|threadfence)\(\)")


def sites() -> list[str]:
    return [
        f"{file.name}:{number}"
        for file in sorted(SOURCE.iterdir())
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if CALL.search(line)
    ]


def sees_a_race(command: list[str], site: str) -> bool:
    variables = {"CUDA_ON_CPU_WITHOUT": site, "TSAN_OPTIONS": "halt_on_error=1"}
    try:
        result = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired as late:  # threads that wait for each other at two barriers
        result = late
    return b"ThreadSanitizer: data race" in (result.stderr or b"")


def main(arguments: list[str]) -> int:
    prefix = arguments[: arguments.index("--")]  # as the other tests are started: setarch -R
    words = arguments[len(prefix) + 1 :]
    runs = [[*prefix, *words[i : i + 2]] for i in range(0, len(words), 2)]
    unseen = []
    for site in sites():
        seen = any(sees_a_race(run, site) for run in runs)
        print(f"{site}: {'seen' if seen else 'NOT SEEN'}", flush=True)
        unseen += [] if seen else [site]
    return 1 if unseen or not sites() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
