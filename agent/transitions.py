"""tbd"""


def is_declared(state: type, event: type, to: type) -> bool:
    """tbd"""
    return True
