"""The fields of a case: names and bytes, as cases.h reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LABELS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]
LABEL_REDUCTIONS = ["mean", "sum", "none", "image_mean"]
SIZE_REDUCTIONS = ["mean", "sum", "none"]
NORMALIZATIONS = ["area", "none", "area2"]
# Around a warp, a block and a chunk of the small blocks that the shim sets, several chunks, and
# more than 32 of them, which are added in another way.
SIZES = [1, 3, 31, 33, 63, 65, 257, 900, 1023, 1025, 4097]
LONG = 65_537
MAIN = 256 * 256  # whole tiles; with 8 more pixels a rest of two vectors, with 1 more an odd one

Fields = dict[str, bytes]


def raw(tensor: Tensor) -> bytes:
    return (
        tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.dim()
        else (tensor.detach().reshape(1).view(torch.uint8).numpy().tobytes())
    )


def integers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def doubles(tensor: Tensor) -> bytes:
    return raw(tensor.double().flatten())


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def write(path: Path, cases: Iterator[Fields]) -> None:
    with path.open("wb") as file:
        for fields in cases:
            file.write(struct.pack("<Q", len(fields)))
            for name, data in fields.items():
                file.write(struct.pack("<QQ", len(name), len(data)) + name.encode() + data)
