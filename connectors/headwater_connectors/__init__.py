"""Everything outside headwater: one folder per system that changes come from or go to."""
