"""From a checkpoint directory to a running Triton and gateway (`autoglm serve`)."""
