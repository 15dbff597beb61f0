"""The number of the contract: which rules the bits follow.

It is raised when any rounded bit, code, draw or packed byte of an existing call changes. Saved
files carry it, and a reader refuses a number it does not know.
"""

CONTRACT = 1
