"""What the numbers in the messages mean, the same on both sides of a link: pure, and standing on nothing."""
