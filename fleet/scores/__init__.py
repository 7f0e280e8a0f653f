"""The Scores: frozen values that describe what shall be, and beside each the interpreter that applies it.

A Score never does anything. An interpreter takes the Score and the capabilities it needs, is safe to run again, and
answers an outcome: a sum type, one type per thing that can happen.
"""
