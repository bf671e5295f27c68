"""Shared by the other packages: communication of processes, random numbers, drawing."""
