"""What a run will take: memory, time, disk."""
