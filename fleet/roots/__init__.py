"""Composition roots beside `fleet.__main__`: where adapters are chosen for one program or for several commands."""
