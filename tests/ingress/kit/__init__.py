"""What the matrix and the suites share: programs, the stand, the wire, tables."""
