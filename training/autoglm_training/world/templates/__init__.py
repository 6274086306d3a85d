"""Screen templates: each lays out one kind of screen on a Canvas."""
