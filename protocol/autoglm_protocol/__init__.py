"""The words that gateway, backend, client and training share. Imports no sibling package and no torch."""
