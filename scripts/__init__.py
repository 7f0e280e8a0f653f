"""What maintainers run: the generators of the reference pages."""
