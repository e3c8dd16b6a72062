"""What every front door calls."""
