"""Key/value blocks: who owns which, who shares a prefix, what may be evicted. Pure Python, no torch.

Every segment of layers has a pool of its own, so a shallow request never reserves deep memory. A block is in exactly
one of three places: free, owned (reference count > 0), or cached (count 0, content kept for a later prefix hit, evicted
least recently used first). Only full blocks of exact keys and values are ever published.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Sequence as Seq

from autoglm_backend.engine.sequence import Sequence


class BlockPool:
    """The blocks of one segment."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = deque(range(num_blocks))
        self._references = [0] * num_blocks
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Blocks that `take` can hand out now: free ones and cached ones that may be evicted."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    def take(self) -> int:
        """An empty block with one reference. The caller has checked `num_available`."""
        if self._free:
            block = self._free.popleft()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._block_of[self._key_of.pop(block)]
        self._references[block] = 1
        return block

    def lookup(self, key: bytes) -> int | None:
        return self._block_of.get(key)

    def is_idle(self, block: int) -> bool:
        """True when only the cache holds the block, so sharing it uses up an available one."""
        return self._references[block] == 0

    def share(self, block: int) -> None:
        """One more owner of a published block."""
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1

    def publish(self, block: int, key: bytes) -> None:
        """Let later prompts find this full block. A second block of the same content stays private."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def release(self, block: int) -> None:
        assert self._references[block] > 0, "released a block that nobody owns"
        self._references[block] -= 1
        if self._references[block] == 0:
            if block in self._key_of:
                self._cached[block] = None
            else:
                self._free.append(block)


class BlockManager:
    def __init__(
        self,
        num_segments: int,
        num_blocks: int,
        block_tokens: int,
        *,
        prefix_cache: bool = True,
        block_bytes: Seq[int] | None = None,
    ) -> None:
        # block_bytes: memory of one block of each segment; None where nobody asks for bytes.
        self.block_bytes = tuple(block_bytes or [0] * num_segments)
        self.bytes_peak = 0
        self.block_tokens = block_tokens
        self.prefix_cache = prefix_cache
        self.pools = [BlockPool(num_blocks) for _ in range(num_segments)]
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def usage(self) -> float:
        """Share of the fullest pool that live sequences own, 0 to 1."""
        return max(pool.num_used / pool.num_blocks for pool in self.pools)

    @property
    def bytes_used(self) -> int:
        """Key/value memory that live sequences own; a shared block counts once."""
        return sum(pool.num_used * size for pool, size in zip(self.pools, self.block_bytes, strict=True))

    @property
    def capacity_tokens(self) -> int:
        return min(pool.num_blocks for pool in self.pools) * self.block_tokens

    def adopt_prefix(self, sequence: Sequence) -> None:
        """Give a sequence without blocks the longest cached prefix that exists at all of its depths.

        At least one token stays to be run, because its logits are needed. Where the router is still to be asked, all
        tokens run: it looks at every one, and its answer must not depend on what others asked before.
        """
        if not self.prefix_cache or sequence.kv_len[0] or sequence.probe_depth is not None:
            return
        self._extend_keys(sequence, len(sequence.ids))
        limit = (len(sequence.ids) - 1) // self.block_tokens
        found = 0
        while found < limit and all(
            pool.lookup(sequence.block_keys[found]) is not None for pool in self._pools_of(sequence)
        ):
            found += 1
        for segment, pool in enumerate(self._pools_of(sequence)):
            for key in sequence.block_keys[:found]:
                block = pool.lookup(key)
                assert block is not None
                pool.share(block)
                sequence.blocks[segment].append(block)
            sequence.kv_len[segment] = found * self.block_tokens
            sequence.num_published[segment] = found
        sequence.num_cached = found * self.block_tokens
        self.release_unread(sequence)

    def count_admission(self, sequence: Sequence) -> None:
        """Keep the hit rate: once per request, not per attempt to admit it."""
        if self.prefix_cache and sequence.num_preemptions == 0:
            self.prefix_queries += sequence.num_prompt
            self.prefix_hits += sequence.num_cached

    def can_hold(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether `reserve` would succeed for `num_tokens` tokens in all."""
        need = -(-num_tokens // self.block_tokens)
        return all(
            need - len(sequence.blocks[segment]) <= pool.num_available
            for segment, pool in enumerate(self._pools_of(sequence))
        )

    def reserve(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make room for tokens [0, num_tokens) at every depth of the sequence; False (and no change) without room."""
        need = -(-num_tokens // self.block_tokens)
        if all(len(sequence.blocks[segment]) >= need for segment in range(len(sequence.segments))):
            return True
        if not self.can_hold(sequence, num_tokens):
            return False
        for segment, pool in enumerate(self._pools_of(sequence)):
            table = sequence.blocks[segment]
            table.extend(pool.take() for _ in range(need - len(table)))
        own = sum(
            (len(table) - table.count(None)) * size
            for table, size in zip(sequence.blocks, self.block_bytes, strict=False)
        )
        sequence.kv_bytes_peak = max(sequence.kv_bytes_peak, own)
        self.bytes_peak = max(self.bytes_peak, self.bytes_used)
        return True

    def trim(self, sequence: Sequence, num_tokens: int) -> None:
        """Give back what lies beyond tokens [0, num_tokens), as drafts that were not kept do, and beyond its depth."""
        num_segments = len(sequence.segments)
        for pool, table in zip(self.pools[num_segments:], sequence.blocks[num_segments:], strict=False):
            _give_back(pool, table)
        need = -(-num_tokens // self.block_tokens)
        for segment, pool in enumerate(self._pools_of(sequence)):
            table = sequence.blocks[segment]
            while len(table) > need:
                block = table.pop()
                assert block is not None, "the newest tokens are read by all that follow"
                pool.release(block)

    def release_unread(self, sequence: Sequence) -> None:
        """Give back the blocks that a narrow attention window has left behind: no later token reads them."""
        window = sequence.window
        if window is None:
            return
        first = -(-window.sink_tokens // self.block_tokens)
        for segment, pool in enumerate(self._pools_of(sequence)):
            table = sequence.blocks[segment]
            # The next token to run in this segment stands at kv_len; all later ones read less of what is before it.
            end = (sequence.kv_len[segment] + 1 - window.tokens) // self.block_tokens
            for number in reversed(range(first, end)):
                block = table[number]
                if block is None:
                    break
                pool.release(block)
                table[number] = None

    def publish(self, sequence: Sequence) -> None:
        """Let other sequences find the blocks that are now full, exact and committed."""
        if not self.prefix_cache:
            return
        self._extend_keys(sequence, sequence.num_computed)
        for segment, pool in enumerate(self._pools_of(sequence)):
            full = min(sequence.kv_len[segment], len(sequence.ids)) // self.block_tokens
            for number in range(sequence.num_published[segment], full):
                block = sequence.blocks[segment][number]
                assert block is not None, "a block was given back before it was published"
                pool.publish(block, sequence.block_keys[number])
            sequence.num_published[segment] = max(sequence.num_published[segment], full)

    def free(self, sequence: Sequence) -> None:
        # Blocks, not segments: the router may have made the sequence shallower since its last `trim`.
        for pool, table in zip(self.pools, sequence.blocks, strict=False):
            _give_back(pool, table)
        sequence.reset_kv()

    def _pools_of(self, sequence: Sequence) -> list[BlockPool]:
        return self.pools[: len(sequence.segments)]

    def _extend_keys(self, sequence: Sequence, num_tokens: int) -> None:
        size = self.block_tokens
        while len(sequence.block_keys) < num_tokens // size:
            number = len(sequence.block_keys)
            start = number * size
            digest = hashlib.blake2b(sequence.block_keys[-1] if number else b"", digest_size=16)
            digest.update(b"".join(token.to_bytes(4, "little") for token in sequence.ids[start : start + size]))
            for span in sequence.prompt.media:
                if span.start < start + size and span.start + span.length > start:
                    digest.update(span.key + (start - span.start).to_bytes(8, "little", signed=True))
            window = sequence.window
            if window is not None and start + size > window.num_unchanged:
                digest.update(f"window {window.tokens}+{window.sink_tokens}".encode())
            sequence.block_keys.append(digest.digest())


def _give_back(pool: BlockPool, table: list[int | None]) -> None:
    # Last blocks first: a shared prefix should be evicted from its end.
    for block in reversed(table):
        if block is not None:
            pool.release(block)
    table.clear()
