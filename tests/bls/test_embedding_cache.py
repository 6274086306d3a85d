from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from autoglm_backend.bls.embedding_cache import EmbeddedMedia, EmbeddingCache


def media(num_tokens: int = 1) -> EmbeddedMedia:
    """16 bytes a token."""
    return EmbeddedMedia(embeddings_MD=np.zeros((num_tokens, 4), dtype=np.float32), grid=None)


def test_second_request_finds_the_first_ones_embeddings() -> None:
    cache = EmbeddingCache(1000)
    made = EmbeddedMedia(embeddings_MD=np.arange(8, dtype=np.float32).reshape(2, 4), grid=(1, 2))
    assert cache.get_or_compute(b"k", lambda: made) == (made, False)
    found, was_there = cache.get_or_compute(b"k", media)
    assert (was_there, found.grid, cache.num_hits) == (True, (1, 2), 1)
    np.testing.assert_array_equal(found.embeddings_MD, made.embeddings_MD)


def test_what_is_kept_cannot_be_written_over() -> None:
    cache = EmbeddingCache(1000)
    cache.get_or_compute(b"k", media)
    found = cache.get(b"k")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.embeddings_MD[0, 0] = 1.0


def test_least_recently_used_leaves_when_the_bytes_run_out() -> None:
    cache = EmbeddingCache(32)
    for key in (b"a", b"b"):
        cache.get_or_compute(key, media)
    cache.get(b"a")
    cache.get_or_compute(b"c", media)
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert cache.num_bytes == 32


def test_an_item_larger_than_the_cache_is_not_kept() -> None:
    cache = EmbeddingCache(31)
    cache.get_or_compute(b"a", lambda: media(2))
    assert (cache.get(b"a"), cache.num_bytes) == (None, 0)


def test_concurrent_requests_for_one_item_compute_it_once() -> None:
    cache, release, started, calls = EmbeddingCache(1000), threading.Event(), threading.Event(), []

    def compute() -> EmbeddedMedia:
        calls.append(1)
        started.set()
        release.wait()
        return media()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get_or_compute, b"k", compute)
        started.wait()
        others = [pool.submit(cache.get_or_compute, b"k", compute) for _ in range(3)]
        release.set()
        assert not first.result()[1]
        assert all(other.result()[1] for other in others)
    assert calls == [1]


def test_a_failed_computation_reaches_the_caller_and_leaves_no_trace() -> None:
    cache = EmbeddingCache(1000)

    def fail() -> EmbeddedMedia:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.get_or_compute(b"k", fail)
    assert cache.get_or_compute(b"k", media)[1] is False


def test_kept_embeddings_cannot_be_changed() -> None:
    made, _ = EmbeddingCache(1000).get_or_compute(b"k", media)
    with pytest.raises(ValueError, match="read-only"):
        made.embeddings_MD[0] = 1
