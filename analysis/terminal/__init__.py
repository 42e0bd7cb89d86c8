"""What the commands print: tables that fit a terminal of 80 columns."""
