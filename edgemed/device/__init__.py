"""What a device is (profiles), and which one this machine is (board, GPU). Needs no GPU library."""
