"""The test harness: runs scenarios on targets and judges them. Uses the production programs, never changes them."""
