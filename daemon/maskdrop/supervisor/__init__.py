"""The parent process: owns every ticket and slot number, and not one pixel."""
