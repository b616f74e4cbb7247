"""The tests of the ops; oracle.py is what all of them compare with."""
