"""Python client and the autoglm command."""
