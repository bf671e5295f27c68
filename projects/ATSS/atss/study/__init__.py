"""The experiments of the paper: its tables as rows that run, and how many positives rules choose."""
