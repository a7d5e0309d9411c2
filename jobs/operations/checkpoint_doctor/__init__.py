"""What a deploy would do to the checkpoints that are there, said before it: see docs/checkpoint-doctor.md."""
