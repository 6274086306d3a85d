"""The typed gRPC service and its generated stubs (`make proto` makes them anew from autoglm.proto)."""
