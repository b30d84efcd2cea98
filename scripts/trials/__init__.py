"""Load and endurance of a mounted envfs: what scripts/load and scripts/soak run inside a mount."""
