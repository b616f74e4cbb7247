"""Takes every barrier and every fence out of csrc/cuda in turn: ThreadSanitizer has to see a race.
Then it spoils every stored vector: the comparison with the reference has to fail.

``python planted.py [PREFIX ...] -- EXECUTABLE CASES [EXECUTABLE CASES ...]``: executables that were
built with -fsanitize=thread, each with its file of cases. Exit status 1 if a fault was not seen.
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


def run_without(command: list[str], site: str) -> subprocess.CompletedProcess:
    variables = {"CUDA_ON_CPU_WITHOUT": site, "TSAN_OPTIONS": "halt_on_error=1"}
    try:
        return subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired as late:  # threads that wait for each other at two barriers
        return subprocess.CompletedProcess(command, 0, late.stdout or b"", late.stderr or b"")


def sees_a_race(command: list[str], site: str) -> bool:
    return b"ThreadSanitizer: data race" in run_without(command, site).stderr


def sees_spoilt_vectors(command: list[str]) -> bool:
    result = run_without(command, "vectors")
    return result.returncode == 1 and b", expected " in result.stdout


def main(arguments: list[str]) -> int:
    prefix = arguments[: arguments.index("--")]  # as the other tests are started: setarch -R
    words = arguments[len(prefix) + 1 :]
    runs = [[*prefix, *words[i : i + 2]] for i in range(0, len(words), 2)]
    faults = {
        site: lambda site=site: any(sees_a_race(run, site) for run in runs) for site in sites()
    }
    races = len(faults)
    for run in runs:
        faults[f"vectors of {run[-1]}"] = lambda run=run: sees_spoilt_vectors(run)
    unseen = 0
    for name, is_seen in faults.items():
        seen = is_seen()
        print(f"{name}: {'seen' if seen else 'NOT SEEN'}", flush=True)
        unseen += not seen
    return 1 if unseen or not races else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
