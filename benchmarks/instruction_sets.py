"""What the benchmarks of the ops share: a run for every instruction set, rows and tables."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

import accl_ext

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("baseline", "avx2", "avx512")
"""Each contains those before it."""

Row = dict[str, str]


def available() -> tuple[str, ...]:
    """The instruction sets of this processor, or of the limit that ACCL_EXT_ISA sets."""
    return NAMES[: NAMES.index(accl_ext.build_info()["instruction_set"]) + 1]


def processor() -> str:
    """The processor's name, with the family and model that many names hide, and its cores."""
    about = Path("/proc/cpuinfo")
    fields = {}
    for line in about.read_text().splitlines() if about.exists() else []:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return f"{name}, {os.cpu_count()} cores"


def machine() -> str:
    info = accl_ext.build_info()
    return (
        f"{time.strftime('%Y-%m-%d')}, {processor()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, accl_ext {accl_ext.__version__} ({info['git_revision']})"
    )


def warn_of_load() -> None:
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load is {load:.1f}; timings beside other work are worthless")


def run_each() -> None:
    """Calls this program again for each instruction set, one after the other."""
    for name in available():
        environment = {**os.environ, "ACCL_EXT_ISA": name}
        subprocess.run([sys.executable, *sys.argv], env=environment, check=True)


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_rows(path: Path, rows: list[Row]) -> None:
    """Adds rows to a file, in the place of older rows of the same case, contender and set."""

    def key(row: Row) -> tuple[str, ...]:
        return row["case"], row["contender"], row["instruction_set"]

    new = {key(row) for row in rows}
    kept = [row for row in read_rows(path) if key(row) not in new]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def times(row: Row) -> str:
    """How many times as long as the fused op: the median and the range of the rounds."""
    low, middle, high = (_rounded(row[name]) for name in ("p10", "over_fused", "p90"))
    return f"{middle} x ({low} to {high})"


def _rounded(number: str) -> str:
    value = float(number)
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def table(rows: list[Row], contenders: dict[str, str]) -> str:
    """The instruction sets of each case one below the other, and where they were measured.

    Args:
        rows: of every case, instruction set and contender.
        contenders: the heading of each contender's column.
    """
    found = {(row["case"], row["instruction_set"], row["contender"]): row for row in rows}
    lines = ["| case | instruction set | fused | " + " | ".join(contenders.values()) + " |"]
    lines.append("|---|---|---|" + "---|" * len(contenders))
    for case in dict.fromkeys(row["case"] for row in rows):
        for name in NAMES:
            fused = found.get((case, name, "fused"))
            if fused is None:
                continue
            others = [found.get((case, name, contender)) for contender in contenders]
            cells = [times(row) if row else "" for row in others]
            time_taken = f"{float(fused['median_us']) / 1000:.3g} ms"
            lines.append(" | ".join([f"| {case}", name, time_taken, *cells]) + " |")
    measured = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    return "\n".join(lines) + f"\n\nMeasured {measured}."


def write_section(document: Path, name: str, text: str) -> None:
    """Replaces what stands between the two comments of this name in a document."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    old = document.read_text()
    if len(pattern.findall(old)) != 1:
        raise SystemExit(f"{document}: wanted one section between {begin} and {end}")
    document.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old))
