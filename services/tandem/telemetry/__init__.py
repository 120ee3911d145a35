"""What the processes tell of themselves: logs, and counters under names that stand in one table."""
