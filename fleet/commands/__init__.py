"""What the `fleet` command is made of, but for choosing adapters, which `fleet.__main__` does."""
