"""The ports: narrow Protocols that something in the world offers. Nothing here does anything.

Production code sees the world through these alone; `fleet.adapters` and `agent.linux` implement them for
the real world, `sim` for the virtual one. Errors are those of `fleet.contracts.errors`.
"""
