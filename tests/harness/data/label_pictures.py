"""One mask, and the ways to write it as a picture, for the tests of reading."""

import struct
import zlib

import numpy as np
from accl_harness.data.formats import read_image
from accl_harness.data.labels import binary_mask

MASK = np.zeros((12, 9), np.uint8)
MASK[2:6, 1:8] = 1  # 28 of 108 pixels, off centre in both axes


def mask_of(path, **options):
    return binary_mask(read_image(path, "mask"), **options)[0].tolist()


def painted(inside, outside):
    """A picture [H, W, channels] of two colours."""
    return np.where(MASK[..., None] > 0, np.array(inside), np.array(outside)).astype(np.uint8)


def png(path, array, kind, bits, palette=None, clear=None):
    """A PNG by the book, for the kinds that Pillow cannot write."""
    rows = array.astype(">u2") if bits == 16 else array.astype(np.uint8)
    if bits < 8:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % (8 // bits))))
        rows = rows.reshape(len(rows), -1, 8 // bits)
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        rows = (rows << shifts).sum(-1).astype(np.uint8)

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = array.shape[:2]
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    content += chunk(b"PLTE", bytes(palette)) if palette else b""
    content += chunk(b"tRNS", clear) if clear else b""
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
