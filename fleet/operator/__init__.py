"""The operator: keeps the fleet at what its objects ask for.

Brains decide (pure), hands carry out (the loop). Sealed: outside code enters by `fleet.operator.loop` alone.
"""
