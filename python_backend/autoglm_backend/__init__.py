"""Everything that runs inside Triton, importable without Triton."""
