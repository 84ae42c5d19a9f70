"""Makes results of a picture and its labels, and marks them with the picture's SHA-256. Writes no files."""
