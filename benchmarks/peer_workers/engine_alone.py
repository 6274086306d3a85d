"""This engine without Triton: `python engine_alone.py CHECKPOINT THREADS DTYPE QUANTIZATION`."""

from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import loop
import numpy as np

from autoglm_backend.encoders.vision import VisionService
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.preprocess.image import ImagePatches, load_image_config, preprocess_image
from autoglm_backend.preprocess.picture_file import decode_picture
from autoglm_protocol.events import Failed, StreamEvent, TokenDelta
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest


class Waiter:
    """Waits for the last of several streams."""

    def __init__(self, streams: int) -> None:
        self._left = streams
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._failure: Failed | None = None

    def emit(self, event: StreamEvent) -> None:
        if isinstance(event, TokenDelta):
            return
        with self._lock:
            if isinstance(event, Failed):
                self._failure = event
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        self._done.wait()
        if self._failure is not None:
            raise self._failure.error


def main() -> None:
    out = loop.take_output()
    directory, threads, dtype, quantization = sys.argv[1:]
    checkpoint = Path(directory)
    options = EngineOptions(
        device="cpu",
        dtype=dtype,
        quantization=quantization,
        threads=int(threads),
        kv_cache_tokens=32768,
        prefix_cache=False,
    )
    service = DecoderService.from_checkpoint(checkpoint, options)
    processor = load_image_config(checkpoint)
    image_id = service.config.image_token_id
    numbers = itertools.count()

    def generate(prompts: list[list[int]], max_tokens: int, image: str | None) -> None:
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        waiter = Waiter(len(prompts))
        for ids in prompts:
            request = DecodeRequest(tag=str(next(numbers)), prompt_ids=np.array(ids, dtype=np.int64), sampling=sampling)
            if image is not None:
                request = with_image(request, image)
            service.add(request, waiter.emit)
        waiter.wait()

    def with_image(request: DecodeRequest, image: str) -> DecodeRequest:
        picture = preprocess_image(decode_picture(Path(image).read_bytes()), processor)
        rows, columns = picture.grid
        merge = processor.merge_size
        # In a thread that ends: a second pool of OpenMP threads in this process would slow the decoder down (the server
        # runs the two in processes of their own).
        with ThreadPoolExecutor(1) as once:
            embeddings = once.submit(encode, picture).result()
        placeholders = np.full(picture.num_tokens, image_id, dtype=np.int64)
        return DecodeRequest(
            tag=request.tag,
            prompt_ids=np.concatenate((placeholders, request.prompt_ids)),
            sampling=request.sampling,
            embeddings_MD=embeddings,
            image_grids=((rows // merge, columns // merge),),
        )

    def encode(picture: ImagePatches) -> np.ndarray:
        if not vision:
            vision.append(VisionService.from_checkpoint(checkpoint, "cpu", dtype=dtype))
        return vision[0].encode(picture.patches_PK, np.array([picture.grid], dtype=np.int32))

    vision: list[VisionService] = []
    loop.serve(generate, out)
    service.shutdown()
    for encoder in vision:
        encoder.close()


if __name__ == "__main__":
    main()
