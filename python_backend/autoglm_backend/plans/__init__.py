"""Encoders outside Python: exported to ONNX, checked there, built into TensorRT plans for Triton."""
