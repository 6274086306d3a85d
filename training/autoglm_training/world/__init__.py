"""The synthetic phone world: it draws screens, reading crops and instructions. Pillow and numpy only."""
