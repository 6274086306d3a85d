"""From a checkpoint directory to a running Triton and gateway; the standard library is all it needs until it starts them."""
