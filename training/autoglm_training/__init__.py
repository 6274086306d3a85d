"""The synthetic phone world and the training of the default checkpoint."""
