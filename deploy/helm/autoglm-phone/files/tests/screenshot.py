"""A picture reaches the vision encoder: it is counted in the usage."""

import base64
import json
import struct
import zlib

from _gateway import post, user


def png(width: int, height: int) -> bytes:
    """A grey screen with a white bar."""
    rows = b"".join(b"\0" + (b"\xff" if row < height // 8 else b"\x80") * (3 * width) for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


url = "data:image/png;base64," + base64.b64encode(png(224, 448)).decode()
content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Open Bluetooth"}]
answer = json.load(post({"messages": user(content), "max_tokens": 64, "temperature": 0}))
image_tokens = answer["usage"]["prompt_tokens_details"]["image_tokens"]
assert image_tokens > 0, answer["usage"]
assert answer["choices"][0]["message"]["content"], answer
print(f"screenshot: {image_tokens} image tokens: {answer['choices'][0]['message']['content']}")
