"""Everything that crosses a boundary: identifiers, time, errors, wire records, objects and the KV layout.

The only part of `fleet` that `agent` may import besides `fleet.capabilities`. It holds values and
their parsing, never behaviour, and it imports nothing of the project outside this folder.
"""
