"""The OpenAI-compatible HTTP and gRPC front of Triton."""
