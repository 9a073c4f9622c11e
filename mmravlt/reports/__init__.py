"""What an evaluation found, in tables and pictures; a file per task."""
