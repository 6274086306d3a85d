"""The continuous-batching engine: policy (scheduler, blocks, sequences) without torch, execution without policy."""
