"""A rank above 0 of a tensor-parallel decoder: `python -m autoglm_backend.engine.tensor_parallel_worker FD`.

FD is a socket to rank 0. The rank loads its share of the layers, then runs the spans that rank 0 sends until the
socket closes. It decides nothing: rank 0 has the scheduler, the heads and the sampling.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] (documented, not listed)

from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.engine.kv_cache import KVCache, PagedAttention
from autoglm_backend.engine.loading import load_decoder, resolve_device
from autoglm_backend.engine.tensor_parallel import Job, SpanCall, join_group, rank_threads
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.layers import Rotation
from autoglm_backend.models.parallel import Shard


def main(descriptor: int) -> None:
    # Rank 0 decides when to stop; a terminal's Ctrl-C reaches every process of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_rank_0, args=(descriptor,), daemon=True).start()
    job: Job = connection.recv()
    options = job.options
    connection.send(("joined", ""))
    try:
        device, dtype = resolve_device(options, job.rank)
        torch.set_num_threads(rank_threads(options, device))
        store = TCPStore("127.0.0.1", job.store_port, is_master=False)
        join_group(store, rank=job.rank, size=options.tensor_parallel_size, device=device)
        config = load_model_config(job.checkpoint_dir).text
        shard = Shard(rank=job.rank, size=options.tensor_parallel_size)
        decoder = load_decoder(
            *(job.checkpoint_dir, config, device, dtype), shard=shard, quantization=options.quantization
        )
        prepare_decoder(decoder, options.quantization, options.block_tokens)
        cache = KVCache(
            *(decoder.config, options.num_blocks, options.block_tokens, dtype, device),
            sparse_prefill=options.sparse_prefill,
        )
    except ValueError as error:
        connection.send(("refused", str(error)))
        sys.exit(1)
    connection.send(("loaded", ""))
    serve_spans(connection, decoder, cache)


@torch.inference_mode()
def serve_spans(connection: Connection, decoder: TextDecoder, cache: KVCache) -> None:
    """Run what rank 0 sends until it closes the connection."""
    keys, config = cache.keys[0], decoder.config
    while True:
        try:
            call: SpanCall = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        num_tokens = len(call.tables.position_T)
        hidden_TD = torch.empty((num_tokens, config.hidden_size), dtype=keys.dtype, device=keys.device)
        angles = torch.empty((2, num_tokens, config.rotary_dim // 2), dtype=torch.float32, device=keys.device)
        dist.broadcast(hidden_TD, src=0)
        dist.broadcast(angles, src=0)
        attend = PagedAttention(cache, call.tables)
        decoder.run_span(call.first, call.last, hidden_TD, Rotation(angles[0], angles[1]), attend)


def _end_with_rank_0(descriptor: int) -> None:
    """Ends this process when rank 0 closes the socket or dies, also in the middle of a sum that cannot end."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)  # hang-ups are reported without being asked for
    while not hang_up.poll():
        pass
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
