"""What a user may say: each option once, as a field of the dataclass that carries it. Standard library only."""
