"""The vision and speech encoders as services: checked tensors in, embeddings out."""
