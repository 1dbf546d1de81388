"""GGUF version 3, written and read with numpy: metadata, Q8_0 matrices and F32 vectors."""
import os
import struct

import numpy as np

ALIGN = 32
U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
PLAIN = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?",
         U64: "Q", I64: "q", F64: "d"}
TYPE_F32, TYPE_Q8_0 = 0, 8
BLOCK = 32


def quantize_q8_0(x):
    """Blocks of 32: an f16 scale d = amax / 127, then 32 signed bytes round(x / d)."""
    x = np.ascontiguousarray(x, np.float32).reshape(-1, BLOCK)
    d = np.abs(x).max(1) / np.float32(127)
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d > 0)[:, None]
    q = x * inverse
    q = np.trunc(q + np.copysign(np.float32(0.5), q)).astype(np.int8)
    out = np.empty(len(x), dtype=[("d", "<f2"), ("q", "i1", BLOCK)])
    out["d"], out["q"] = d, q
    return out.tobytes()


def dequantize_q8_0(raw, shape):
    blocks = np.frombuffer(raw, dtype=[("d", "<f2"), ("q", "i1", BLOCK)])
    return (blocks["d"].astype(np.float32)[:, None] * blocks["q"].astype(np.float32)).reshape(shape)


def pack_string(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def pack_value(kind, value):
    if kind == STR:
        return pack_string(value)
    if isinstance(kind, tuple):     # (ARR, element kind)
        body = b"".join(pack_value(kind[1], v) for v in value)
        return struct.pack("<IQ", kind[1], len(value)) + body
    return struct.pack("<" + PLAIN[kind], value)


def write(path, metadata, tensors):
    """metadata: [(key, kind, value)]; tensors: [(name, array)], matrices become Q8_0.

    The file appears under its name only when it is whole.
    """
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        number = kind[0] if isinstance(kind, tuple) else kind
        head += pack_string(key) + struct.pack("<I", number) + pack_value(kind, value)
    body = b""
    for name, array in tensors:
        matrix = array.ndim == 2
        raw = quantize_q8_0(array) if matrix else np.ascontiguousarray(array, "<f4").tobytes()
        dims = array.shape[::-1]    # GGUF names the fastest dimension first
        head += pack_string(name) + struct.pack("<I%dQ" % len(dims), len(dims), *dims)
        head += struct.pack("<IQ", TYPE_Q8_0 if matrix else TYPE_F32, len(body))
        body += raw + bytes(-len(raw) % ALIGN)
    head += bytes(-len(head) % ALIGN)
    with open(str(path) + ".part", "wb") as f:
        f.write(head + body)
        f.flush()
        os.fsync(f.fileno())
    os.replace(str(path) + ".part", path)


def read(path):
    """-> ({key: value}, {name: float32 array})"""
    data = open(path, "rb").read()
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def take_string():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at].decode()

    def take_value(kind):
        if kind == STR:
            return take_string()
        if kind == ARR:
            element, n = take("IQ")
            return [take_value(element) for _ in range(n)]
        return take(PLAIN[kind])

    magic, version, n_tensors, n_keys = take("4sIQQ")
    assert magic == b"GGUF" and version == 3
    metadata = {}
    for _ in range(n_keys):
        key = take_string()
        metadata[key] = take_value(take("I"))
    places = []
    for _ in range(n_tensors):
        name = take_string()
        shape = [take("Q") for _ in range(take("I"))][::-1]
        places.append((name, shape, *take("IQ")))
    align = metadata.get("general.alignment", ALIGN)
    base = at + -at % align
    tensors = {}
    for name, shape, kind, offset in places:
        count = int(np.prod(shape))
        start = base + offset
        if kind == TYPE_Q8_0:
            tensors[name] = dequantize_q8_0(data[start:start + count // BLOCK * 34], shape)
        else:
            assert kind == TYPE_F32
            tensors[name] = np.frombuffer(data, "<f4", count, start).reshape(shape)
    return metadata, tensors
