"""What a checkpoint can do, measured on held-out requests and episodes."""
