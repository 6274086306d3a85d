"""Exits for a frozen backbone: train the heads, fit the gates, certify thresholds, route whole requests."""
