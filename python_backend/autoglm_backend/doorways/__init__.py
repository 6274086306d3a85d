"""What stands behind each model.py of the model repository: Triton on one side, the services on the other."""
