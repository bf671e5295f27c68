"""What the rooms share: processes that agree, random numbers, drawing."""
