"""The neural networks: maths without policy."""
