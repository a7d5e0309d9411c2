"""Says before a deploy what it would do to the checkpoints that are there: see docs/checkpoint-doctor.md."""
