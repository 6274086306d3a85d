"""Shapes and schedules of every training recipe."""
